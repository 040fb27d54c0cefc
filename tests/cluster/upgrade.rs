//! Rolling upgrade from an older version to this one. `scripts/upgrade-test` builds the older one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use harness::{binary, eventually, run};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Processes of three masters and a worker, each of either version.
struct Processes {
    dir: tempfile::TempDir,
    running: Vec<(String, Child)>,
}

impl Processes {
    fn start(&mut self, program: &Path, name: &str) {
        let role = if name.starts_with("master") { "server" } else { "agent" };
        let log =
            || fs::File::options().create(true).append(true).open(self.dir.path().join(name).with_extension("log"));
        let mut command = Command::new(program);
        command.arg(role).arg("--config").arg(self.dir.path().join(name).join("config.toml")).stdin(Stdio::null());
        command.stdout(log().expect("a log")).stderr(log().expect("a log"));
        self.running.push((name.to_owned(), command.spawn().expect("it starts")));
    }

    fn stop(&mut self, name: &str) {
        let at = self.running.iter().position(|(running, _)| running == name).expect("it runs");
        let (_, mut process) = self.running.remove(at);
        kill(Pid::from_raw(i32::try_from(process.id()).expect("a pid")), Signal::SIGTERM).expect("it runs");
        process.wait().expect("it ends");
    }

    fn qctl(&self, args: &[&str]) -> Result<String, String> {
        let mut command = Command::new(binary("qctl"));
        command.env("KUBECONFIG", self.dir.path().join("kubeconfig")).env("HOME", self.dir.path()).args(args);
        run(&mut command, "").result().map_err(|output| output.stderr)
    }

    /// Waits until all masters answer and none lags, and returns the leader's name.
    fn settled(&self) -> String {
        eventually("all masters", || {
            let quorum = self.qctl(&["quorum", "-o", "json"])?;
            let quorum: Value = serde_json::from_str(&quorum).map_err(|error| error.to_string())?;
            let members = quorum["members"].as_array().cloned().unwrap_or_default();
            let is_there = |m: &Value| m["role"] != "unreachable" && m["voter"] == true && m["lag"] == 0;
            let leader = quorum["leader"].as_str().filter(|_| members.len() == 3 && members.iter().all(is_there));
            leader.map(str::to_owned).ok_or_else(|| quorum.to_string())
        })
    }

    /// Checks that a Deployment can be created and its pods run.
    fn works(&self, step: &str) {
        let name = format!("web-{step}");
        eventually("a Deployment to be created", || {
            match self.qctl(&["create", "deployment", &name, "--image=example", "--replicas=2"]) {
                Err(error) if !error.contains("already exists") => Err(error),
                _ => Ok(()),
            }
        });
        eventually("its pods", || {
            let found = self.qctl(&["get", "deployment", &name, "-o", "jsonpath={.status.availableReplicas}"])?;
            if found.trim() == "2" { Ok(()) } else { Err(found) }
        });
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for (_, process) in &mut self.running {
            // Both calls may fail if the process has ended by itself.
            process.kill().ok();
            process.wait().ok();
        }
    }
}

#[test]
#[ignore = "needs an older binary: scripts/upgrade-test builds one and runs this"]
fn machines_are_upgraded_one_after_the_other() {
    let older = PathBuf::from(std::env::var_os("QUORATE_OLDER").expect("QUORATE_OLDER names the older binary"));
    let newer = binary("quorate");
    let dir = tempfile::Builder::new().prefix("quorate-upgrade-").tempdir().expect("a temporary directory");
    let mut up = Command::new(&older);
    up.arg("up").arg("--data-dir").arg(dir.path()).args(["--masters", "3", "--workers", "1"]);
    run(up.args(["--runtime", "hollow", "--prepare"]), "").ok();
    let mut processes = Processes { dir, running: Vec::new() };
    let masters = ["master-1", "master-2", "master-3"];
    for name in masters.into_iter().chain(["worker-1"]) {
        processes.start(&older, name);
    }
    processes.settled();
    processes.works("older");
    for (done, name) in masters.iter().enumerate() {
        processes.stop(name);
        processes.start(&newer, name);
        processes.settled();
        // Every master leads once, so each version leads while the other follows.
        for leader in masters {
            eventually("leadership to move", || {
                processes.qctl(&["quorum", "transfer", leader])?;
                if processes.settled() == leader { Ok(()) } else { Err(format!("{leader} does not lead")) }
            });
            processes.works(&format!("{done}-{leader}"));
        }
    }
    processes.stop("worker-1");
    processes.start(&newer, "worker-1");
    processes.works("newer");
}

//! The command tree, and the steps around a command: flags, connection, errors and exit code.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::commands;
use crate::error::{CliError, Result};
use crate::kubeconfig::{self, Environment, Overrides};
use crate::session::Session;
use crate::streams::Streams;
use crate::transport::Transport;

/// qctl controls a Quorate cluster, or any other cluster that serves the Kubernetes API.
#[derive(Debug, Parser)]
#[command(name = "qctl", disable_help_subcommand = false, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The kubeconfig file, instead of $KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The kubeconfig's context to use
    #[arg(long, global = true)]
    context: Option<String>,
    /// The kubeconfig's cluster to use
    #[arg(long, global = true)]
    cluster: Option<String>,
    /// The kubeconfig's user to use
    #[arg(long, global = true)]
    user: Option<String>,
    /// The API server's URL
    #[arg(short = 's', long, global = true, value_name = "URL")]
    server: Option<String>,
    /// A bearer token
    #[arg(long, global = true)]
    token: Option<String>,
    /// Do not check the server's certificate
    #[arg(long, global = true)]
    insecure_skip_tls_verify: bool,
    /// A file with the certificate authority of the server
    #[arg(long, global = true, value_name = "FILE")]
    certificate_authority: Option<String>,
    /// A file with the client's certificate
    #[arg(long, global = true, value_name = "FILE")]
    client_certificate: Option<String>,
    /// A file with the client's key
    #[arg(long, global = true, value_name = "FILE")]
    client_key: Option<String>,
    /// The namespace
    #[arg(short = 'n', long, global = true)]
    namespace: Option<String>,
    /// Maximum time to wait for one response, such as 5s or 1m; 0 means no limit
    #[arg(long, global = true, value_name = "DURATION", value_parser = crate::duration::parse)]
    request_timeout: Option<Duration>,
    /// The directory of the discovery cache [default: ~/.kube/cache]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    cache_dir: Option<PathBuf>,
    /// Log to standard error: 6 shows requests, 8 their bodies, 9 everything
    #[arg(short = 'v', long = "v", global = true, value_name = "LEVEL", default_value_t = 0)]
    verbosity: u8,
}

/// All commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    Get(commands::get::Get),
    Describe(commands::describe::Describe),
    Apply(commands::apply::Apply),
    Create(commands::create::Create),
    Delete(commands::delete::Delete),
    Edit(commands::edit::Edit),
    Logs(commands::logs::Logs),
    Scale(commands::scale::Scale),
    Rollout(commands::rollout::Rollout),
    Run(commands::run::Run),
    Cordon(commands::cordon::Cordon),
    Uncordon(commands::cordon::Uncordon),
    Drain(commands::drain::Drain),
    Taint(commands::taint::Taint),
    Label(commands::label::Label),
    Annotate(commands::label::Annotate),
    Set(commands::set::Set),
    Patch(commands::patch::Patch),
    Diff(commands::diff::Diff),
    Events(commands::events::Events),
    Exec(commands::exec::Exec),
    Attach(commands::attach::Attach),
    Cp(commands::cp::Cp),
    PortForward(commands::port_forward::PortForward),
    Debug(commands::debug::Debug),
    Replace(commands::replace::Replace),
    Expose(commands::expose::Expose),
    Auth(commands::auth::Auth),
    Proxy(commands::proxy::Proxy),
    Explain(commands::explain::Explain),
    Wait(commands::wait::Wait),
    Quorum(commands::quorum::Quorum),
    Token(commands::token::Token),
    Backup(commands::backup::Backup),
    ApiResources(commands::api::ApiResources),
    ApiVersions(commands::api::ApiVersions),
    Version(commands::version::Version),
    Config(commands::config::Config),
    Completion(commands::completion::Completion),
}

impl Command {
    async fn run(self, session: &mut Session) -> Result<()> {
        match self {
            Command::Get(command) => command.run(session).await,
            Command::Describe(command) => command.run(session).await,
            Command::Apply(command) => command.run(session).await,
            Command::Create(command) => command.run(session).await,
            Command::Delete(command) => command.run(session).await,
            Command::Edit(command) => command.run(session).await,
            Command::Logs(command) => command.run(session).await,
            Command::Scale(command) => command.run(session).await,
            Command::Rollout(command) => command.run(session).await,
            Command::Run(command) => command.run(session).await,
            Command::Cordon(command) => command.run(session).await,
            Command::Uncordon(command) => command.run(session).await,
            Command::Drain(command) => command.run(session).await,
            Command::Taint(command) => command.run(session).await,
            Command::Label(command) => command.run(session).await,
            Command::Annotate(command) => command.run(session).await,
            Command::Set(command) => command.run(session).await,
            Command::Patch(command) => command.run(session).await,
            Command::Diff(command) => command.run(session).await,
            Command::Events(command) => command.run(session).await,
            Command::Exec(command) => command.run(session).await,
            Command::Attach(command) => command.run(session).await,
            Command::Cp(command) => command.run(session).await,
            Command::PortForward(command) => command.run(session).await,
            Command::Debug(command) => command.run(session).await,
            Command::Replace(command) => command.run(session).await,
            Command::Expose(command) => command.run(session).await,
            Command::Auth(command) => command.run(session).await,
            Command::Proxy(command) => command.run(session).await,
            Command::Explain(command) => command.run(session).await,
            Command::Wait(command) => command.run(session).await,
            Command::Quorum(command) => command.run(session).await,
            Command::Token(command) => command.run(session).await,
            Command::Backup(command) => command.run(session).await,
            Command::ApiResources(command) => command.run(session).await,
            Command::ApiVersions(command) => command.run(session).await,
            Command::Version(command) => command.run(session).await,
            Command::Config(_) | Command::Completion(_) => Ok(()),
        }
    }
}

/// Parses the arguments, connects, runs the command and reports errors. Returns the exit code.
pub async fn execute(arguments: Vec<OsString>, mut streams: Streams, environment: Environment) -> u8 {
    let cli = match Cli::try_parse_from(rewrite_arguments(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            let failed = error.use_stderr();
            let text = error.render().to_string();
            let written =
                if failed { streams.note(text.trim_end()) } else { streams.text(text).and_then(|()| streams.flush()) };
            return u8::from(failed || written.is_err());
        }
    };
    log(cli.global.verbosity);
    let (outcome, streams) = start(cli, streams, &environment).await;
    finish(outcome, streams)
}

async fn start(cli: Cli, mut streams: Streams, environment: &Environment) -> (Result<()>, Streams) {
    let overrides = cli.global.overrides();
    match &cli.command {
        Command::Completion(command) => return (command.run(&mut streams), streams),
        Command::Config(command) => return (command.run(&mut streams, &overrides, environment), streams),
        Command::Version(command) if command.client => return (command.run_client(&mut streams), streams),
        Command::Version(command) => {
            if let Err(error) = command.check() {
                return (Err(error), streams);
            }
        }
        _ => {}
    }
    let connection = match kubeconfig::load(&overrides, environment) {
        Ok(kubeconfig) => kubeconfig::connect(kubeconfig, &overrides).await,
        Err(error) => Err(error),
    };
    let connection = match connection {
        Ok(connection) => connection,
        Err(error) => return (Err(error), streams),
    };
    let timeout = cli.global.request_timeout.filter(|timeout| !timeout.is_zero());
    let cache = cli.global.cache_dir.clone().or_else(|| environment.home.as_ref().map(|home| home.join(".kube/cache")));
    let given = cli.global.namespace.is_some();
    let namespace = cli.global.namespace.unwrap_or(connection.namespace);
    let transport = Transport::new(connection.configs, timeout);
    let mut session = Session::new(streams, transport, namespace, given, cache);
    let outcome = cli.command.run(&mut session).await;
    (outcome, session.streams)
}

fn finish(outcome: Result<()>, mut streams: Streams) -> u8 {
    let outcome = outcome.and_then(|()| streams.flush());
    let Err(error) = outcome else { return 0 };
    if error.is_broken_pipe() {
        return 0;
    }
    let code = error.exit_code();
    if matches!(error, CliError::Exit(_)) {
        return if streams.flush().is_ok() { code } else { 1 };
    }
    if streams.note(error.report()).is_ok() { code } else { 1 }
}

impl Global {
    fn overrides(&self) -> Overrides {
        Overrides {
            kubeconfig: self.kubeconfig.clone(),
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
            server: self.server.clone(),
            token: self.token.clone(),
            insecure_skip_tls_verify: self.insecure_skip_tls_verify,
            certificate_authority: self.certificate_authority.clone(),
            client_certificate: self.client_certificate.clone(),
            client_key: self.client_key.clone(),
        }
    }
}

fn log(verbosity: u8) {
    let filter = match verbosity {
        0 => return,
        1..=5 => "warn",
        6..=7 => "quorate_qctl=debug,warn",
        8 => "quorate_qctl=trace,warn",
        _ => "trace",
    };
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_target(false)
        .finish();
    // An embedding program may have set a subscriber, which stays.
    if tracing::subscriber::set_global_default(subscriber).is_err() {
        tracing::debug!("logging was set up already");
    }
}

/// Rewrites kubectl's `--flag=true` to the flag, drops `--flag=false`, and renames a command's own `--user` (see
/// [`renamed`]).
fn rewrite_arguments(arguments: Vec<OsString>) -> Vec<OsString> {
    let tree = Cli::command();
    let mut command = &tree;
    let mut switches = switches_of(command);
    let mut rewritten = Vec::with_capacity(arguments.len());
    let mut arguments = arguments.into_iter();
    for argument in arguments.by_ref() {
        if argument == "--" {
            rewritten.push(argument);
            break;
        }
        if let Some(subcommand) = argument.to_str().and_then(|word| command.find_subcommand(word)) {
            command = subcommand;
            switches.extend(switches_of(command));
        }
        let argument = renamed(command, argument);
        let flag = argument.to_str().and_then(|text| text.strip_prefix("--")?.split_once('='));
        match flag {
            Some((name, "true")) if switches.contains(name) => rewritten.push(format!("--{name}").into()),
            Some((name, "false")) if switches.contains(name) => {}
            _ => rewritten.push(argument),
        }
    }
    rewritten.extend(arguments);
    rewritten
}

/// Renames a command's own `--user` to `--bind-user`, because `--user` is also a flag of every command.
fn renamed(command: &clap::Command, argument: OsString) -> OsString {
    let user = argument.to_str().and_then(|text| text.strip_prefix("--user"));
    match user.filter(|rest| rest.is_empty() || rest.starts_with('=')) {
        Some(rest) if command.get_arguments().any(|known| known.get_long() == Some("bind-user")) => {
            format!("--bind-user{rest}").into()
        }
        _ => argument,
    }
}

/// Returns the flags of one command that take no value.
fn switches_of(command: &clap::Command) -> HashSet<String> {
    command
        .get_arguments()
        .filter(|argument| matches!(argument.get_action(), ArgAction::SetTrue))
        .filter_map(|argument| argument.get_long().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let words = line.split_whitespace().map(OsString::from).collect();
        Cli::try_parse_from(rewrite_arguments(words))
    }

    #[test]
    fn the_tree_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kubectl_command_lines_are_accepted() {
        for line in [
            "qctl get po,svc -o wide -l app=web -n blue",
            "qctl -n blue get pods -A --no-headers=true",
            "qctl get pods -o=jsonpath={.items[*].metadata.name}",
            "qctl get deploy/web -ojson",
            "qctl get pods -w --watch-only --show-labels -L app,tier --sort-by=.metadata.name",
            "qctl apply -f a.yaml -f - --dry-run=server",
            "qctl delete pod a b --grace-period=0 --force --wait=false",
            "qctl delete -f x.yaml --ignore-not-found",
            "qctl delete pods --all --cascade=orphan --now",
            "qctl logs -f deploy/web -c main --tail=10 --since=5m --timestamps --prefix",
            "qctl logs web -p --all-containers=true",
            "qctl scale deploy web --replicas=3 --current-replicas=2",
            "qctl rollout undo deployment/web --to-revision=2",
            "qctl rollout status deploy web --timeout=60s --watch=false",
            "qctl drain n1 --ignore-daemonsets --delete-emptydir-data --force --timeout=1m --grace-period=5",
            "qctl taint nodes n1 key=value:NoSchedule key2-",
            "qctl label pods a x=y z- --overwrite",
            "qctl annotate pod a x=y",
            "qctl set image deploy/web web=nginx:2",
            "qctl patch pod a -p {} --type=merge",
            "qctl wait pod/a --for=condition=Ready --timeout=30s",
            "qctl create deployment web --image=x --replicas=2 -- sleep 1",
            "qctl create secret generic s --from-literal=a=b --from-file=f",
            "qctl replace -f x.yaml --force --grace-period=0 --save-config",
            "qctl expose deployment web --port=80 --target-port=http --type=NodePort --name=x -l a=b",
            "qctl auth can-i get pods/web --subresource=log -q",
            "qctl auth can-i --list --no-headers",
            "qctl auth whoami -o yaml",
            "qctl proxy -p 0 --www=./local --api-prefix=/k8s",
            "qctl debug web -it --image=busybox --target=main --env=A=b -- sh",
            "qctl debug node/worker-1 --image=busybox --profile=sysadmin --attach=false",
            "qctl debug web --copy-to=copy --set-image=*=x:2 --share-processes=false --same-node",
            "qctl run -it --rm x --image=busybox --restart=Never -- sh",
            "qctl create secret tls s --cert=a --key=b",
            "qctl create secret docker-registry s --docker-username=u --docker-password=p",
            "qctl create service clusterip s --tcp=80:8080 --tcp=443",
            "qctl create service externalname s --external-name=example.org",
            "qctl create job j --from=cronjob/c",
            "qctl create cronjob c --image=x --schedule=@daily -- date",
            "qctl create ingress i --rule=a.b/c*=s:80,tls=x --class=y",
            "qctl create role r --verb=get,list --resource=pods,deployments.apps/scale --resource-name=x",
            "qctl --user admin create rolebinding r --role=x --user=jane --user john --group g --serviceaccount=a:b",
            "qctl create clusterrole r --aggregation-rule=a=b,c=d",
            "qctl create clusterrolebinding r --clusterrole=x --user jane",
            "qctl create pdb p --selector=app=web --min-available=50%",
            "qctl create priorityclass p --value=-5 --global-default=true --description=text",
            "qctl create quota q --hard=cpu=1,memory=1G --scopes=BestEffort -o yaml --dry-run=client",
            "qctl create token t --duration=10m --audience=a",
            "qctl exec -it web -c main -- sh -c 'echo -n x'",
            "qctl exec deploy/web -iq --pod-running-timeout=5s -- ls -l",
            "qctl attach web -it",
            "qctl cp -c main /tmp/x ns/web:/tmp --no-preserve --retries=-1",
            "qctl port-forward svc/web 8080:http :443 --address 0.0.0.0,localhost",
            "qctl run x --image=busybox --restart=Never -- echo hi",
            "qctl explain deploy.spec.strategy --recursive --api-version=apps/v1",
            "qctl get pods -v 6 --request-timeout=5s",
            "qctl version --client",
            "qctl quorum -o json",
            "qctl quorum add m4 --peer h:1 --api https://h:2 --learner",
            "qctl quorum replace m3 m4 --peer h:1",
            "qctl quorum remove m4",
            "qctl quorum transfer",
            "qctl token create --role master --replaces m3 --ttl 1h",
            "qctl token create --role worker --uses 5 --token-only",
            "qctl token list -o json",
            "qctl token revoke 0a0b0c0d",
            "qctl completion bash",
            "qctl config use-context x",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
        assert!(parse("qctl frobnicate").is_err());
        assert!(parse("qctl patch pod a --type=strange -p {}").is_err());
    }

    #[test]
    fn false_switches_are_dropped_except_after_two_dashes() {
        let words = ["qctl", "get", "--watch=false", "--no-headers=true", "--", "--watch=false"].map(OsString::from);
        assert_eq!(
            rewrite_arguments(words.to_vec()),
            ["qctl", "get", "--no-headers", "--", "--watch=false"].map(OsString::from)
        );
    }
}

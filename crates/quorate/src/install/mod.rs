//! `quorate install` and `quorate uninstall`: set up this machine as a master or worker that systemd runs, or remove
//! it.

mod check;
mod unit;

use std::fs;
use std::io::{self, BufRead};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use quorate_pki::{write_private, write_public};

use crate::config::{AgentOptions, Runtime, ServerOptions, agent, server};
use crate::logging::progress;
use crate::server::STORE_DIRECTORY;
use unit::Role;

const BINARY: &str = "/usr/local/bin/quorate";
const UNITS: &str = "/etc/systemd/system";
const CONFIGURATION: &str = "/etc/quorate";

#[derive(clap::Args, Clone, Debug)]
pub struct InstallArgs {
    #[command(subcommand)]
    role: InstallRole,
}

#[derive(clap::Subcommand, Clone, Debug)]
enum InstallRole {
    /// Install a master. Takes the options of `quorate server`, such as --init or --join.
    Server {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: Box<ServerOptions>,
    },
    /// Install a worker. Takes the options of `quorate agent`, such as --server and --token.
    Agent {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        options: Box<AgentOptions>,
    },
}

#[derive(clap::Args, Clone, Debug)]
struct Target {
    /// Write below this directory instead of `/`, and start nothing. Use it to build machine images.
    #[arg(long, default_value = "/")]
    root: PathBuf,
    /// Write the files and start nothing.
    #[arg(long)]
    no_start: bool,
}

#[derive(clap::Args, Clone, Debug)]
pub struct UninstallArgs {
    /// Role to remove. [default: all installed roles]
    #[arg(value_enum)]
    role: Option<Role>,
    /// Remove the data too: the state, the certificates, and a worker's containers. Asks for confirmation.
    #[arg(long)]
    purge: bool,
    /// Do not ask for confirmation.
    #[arg(long)]
    yes: bool,
    /// Remove below this directory instead of `/`, and stop nothing.
    #[arg(long, default_value = "/")]
    root: PathBuf,
}

/// Returns an absolute path of the machine, placed below `root`.
fn below(root: &Path, path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    root.join(path.strip_prefix("/").unwrap_or(path))
}

pub fn install(args: InstallArgs) -> anyhow::Result<()> {
    match args.role {
        InstallRole::Server { target, options } => {
            check::server(&options, &target)?;
            let data_dir = options.data_dir.clone().unwrap_or_else(|| server::DEFAULT_DATA_DIR.into());
            let founds = options.init.unwrap_or(false);
            let text = toml::to_string(&*options).context("the options cannot be written")?;
            install_files(&target, Role::Server, &text, &data_dir, true)?;
            if founds && should_start(&target) {
                progress("The commands for other machines are in its journal: journalctl -u quorate-server -o cat");
            }
            Ok(())
        }
        InstallRole::Agent { target, options } => {
            check::agent(&options, &target)?;
            let data_dir = options.data_dir.clone().unwrap_or_else(|| agent::DEFAULT_DATA_DIR.into());
            let docker = options.runtime.unwrap_or(Runtime::Docker) == Runtime::Docker;
            let text = toml::to_string(&*options).context("the options cannot be written")?;
            install_files(&target, Role::Agent, &text, &data_dir, docker)
        }
    }
}

/// Returns whether systemd runs this machine and should start the installed unit.
fn should_start(target: &Target) -> bool {
    target.root == Path::new("/") && !target.no_start && has_systemd()
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn install_files(target: &Target, role: Role, options: &str, data_dir: &Path, docker: bool) -> anyhow::Result<()> {
    let root = &target.root;
    let (unit, config) = (Path::new(UNITS).join(role.unit()), Path::new(CONFIGURATION).join(role.config()));
    ensure!(
        !below(root, &config).exists(),
        "{} exists already: edit it and restart {}, or run `quorate uninstall {role}` first",
        below(root, &config).display(),
        role.unit()
    );
    copy_binary(root)?;
    for directory in [data_dir, Path::new(CONFIGURATION)] {
        let path = below(root, directory);
        let created = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        created.with_context(|| format!("cannot create {}; are you root?", path.display()))?;
    }
    // The configuration is last: with it, the role counts as installed, and this command is refused.
    write_public(&below(root, &unit), unit::text(role, Path::new(BINARY), &config, docker).as_bytes())?;
    // The options may contain a token, so the file is private.
    let text = format!("# Options of `quorate {role}`; `quorate {role} --help` explains them.\n{options}");
    write_private(&below(root, &config), text.as_bytes())?;
    progress(format!("wrote {} and {}", below(root, &unit).display(), below(root, &config).display()));
    if should_start(target) {
        let started = systemctl(&["daemon-reload"]).and_then(|()| systemctl(&["enable", "--now", role.unit()]));
        started.with_context(|| {
            let unit = role.unit();
            format!(
                "the files are written, but {unit} was not started; see `journalctl -u {unit}`, then run `systemctl \
                 enable --now {unit}`, or undo this with `quorate uninstall {role}`"
            )
        })?;
        progress(format!("started {}; its log: journalctl -u {}", role.unit(), role.unit()));
    } else if *root == Path::new("/") {
        let unit = role.unit();
        progress(if has_systemd() {
            format!("start it: systemctl daemon-reload && systemctl enable --now {unit}")
        } else {
            format!(
                "systemd does not run this machine; have its init run: {BINARY} {role} --config {}",
                config.display()
            )
        });
    }
    Ok(())
}

/// Copies this binary to the path that the unit expects, unless it runs from there.
fn copy_binary(root: &Path) -> anyhow::Result<()> {
    let own = std::env::current_exe().context("cannot find the quorate binary")?;
    let target = below(root, BINARY);
    if fs::canonicalize(&target).is_ok_and(|target| target == own) {
        return Ok(());
    }
    let directory = target.parent().context("a directory")?;
    let partial = target.with_extension("partial");
    let copy = || -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::copy(&own, &partial)?;
        fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
        fs::File::open(&partial)?.sync_all()?;
        // A running binary cannot be written, but it can be replaced.
        fs::rename(&partial, &target)
    };
    copy().with_context(|| format!("cannot write {}; are you root?", target.display()))
}

fn systemctl(args: &[&str]) -> anyhow::Result<()> {
    let command = || format!("systemctl {}", args.join(" "));
    let status = Command::new("systemctl").args(args).status().with_context(command)?;
    ensure!(status.success(), "`{}` failed ({status})", command());
    Ok(())
}

pub fn uninstall(args: UninstallArgs) -> anyhow::Result<()> {
    let is_installed = |role: &Role| {
        let paths = [Path::new(UNITS).join(role.unit()), Path::new(CONFIGURATION).join(role.config())];
        paths.iter().any(|path| below(&args.root, path).exists())
    };
    let roles: Vec<_> = match args.role {
        Some(role) => vec![role],
        None => [Role::Server, Role::Agent].into_iter().filter(is_installed).collect(),
    };
    ensure!(roles.iter().any(is_installed), "nothing is installed below {}", args.root.display());
    for role in roles {
        remove(&args, role)?;
    }
    Ok(())
}

fn remove(args: &UninstallArgs, role: Role) -> anyhow::Result<()> {
    let config = below(&args.root, Path::new(CONFIGURATION).join(role.config()));
    let installed = Installed::read(role, &config)?;
    let data_dir = below(&args.root, &installed.data_dir);
    if args.purge && !args.yes {
        progress(format!("This permanently deletes everything in {}{}.", data_dir.display(), role.loss()));
        progress("Type `yes` to continue:");
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        ensure!(answer.trim() == "yes", "nothing was removed");
    }
    let is_own = args.root == Path::new("/");
    let unit = below(&args.root, Path::new(UNITS).join(role.unit()));
    // An interrupted installation or removal leaves the configuration alone, and systemd refuses a unit that is not there.
    if is_own && has_systemd() && unit.exists() {
        systemctl(&["disable", "--now", role.unit()])?;
    }
    // The data goes first: without the configuration a failed purge could not be repeated.
    if args.purge {
        purge(&installed, &data_dir, is_own)?;
    } else {
        progress(format!("left {}; --purge removes it", data_dir.display()));
    }
    for path in [unit, config] {
        match fs::remove_file(&path) {
            Ok(()) => progress(format!("removed {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot remove {}", path.display())),
        }
    }
    if is_own && has_systemd() {
        systemctl(&["daemon-reload"])?;
    }
    Ok(())
}

/// Removes the data of a service that has stopped, and a worker's containers.
fn purge(installed: &Installed, data_dir: &Path, is_own: bool) -> anyhow::Result<()> {
    // Without systemd, nobody has stopped the service.
    for (lock, service) in
        [(Path::new(STORE_DIRECTORY).join("lock"), "master"), (quorate_agent::AGENT_LOCK_FILE.into(), "agent")]
    {
        match fs::File::open(data_dir.join(&lock)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("cannot open {}", lock.display())),
            Ok(lock) => ensure!(
                !matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)),
                "{} is in use: stop its {service} first; nothing was deleted",
                data_dir.display()
            ),
        }
    }
    if let Some(cluster) = installed.containers_of.as_ref().filter(|_| is_own) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let removed = runtime.block_on(quorate_agent::remove_containers(cluster));
        let count =
            removed.with_context(|| format!("cannot remove the containers of {cluster}; nothing was deleted"))?;
        progress(format!("removed {count} containers"));
    }
    // Volumes of pods are mounted below; what they show is not the agent's to delete.
    quorate_agent::remove_data(data_dir).with_context(|| format!("cannot remove {}", data_dir.display()))?;
    progress(format!("removed {}", data_dir.display()));
    Ok(())
}

/// The installed service, as its configuration describes it.
struct Installed {
    data_dir: PathBuf,
    /// Name that marks a worker's containers on the local engine.
    containers_of: Option<String>,
}

impl Installed {
    fn read(role: Role, config: &Path) -> anyhow::Result<Installed> {
        let text = match fs::read_to_string(config) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            text => text.with_context(|| format!("cannot read {}", config.display()))?,
        };
        let wrong = || {
            format!(
                "{} is not a valid configuration; mend it, or remove it to uninstall with the default directories",
                config.display()
            )
        };
        Ok(match role {
            Role::Server => {
                let options: ServerOptions = toml::from_str(&text).with_context(wrong)?;
                let data_dir = options.data_dir.unwrap_or_else(|| server::DEFAULT_DATA_DIR.into());
                Installed { data_dir, containers_of: None }
            }
            Role::Agent => {
                let options: AgentOptions = toml::from_str(&text).with_context(wrong)?;
                let docker = options.runtime.unwrap_or(Runtime::Docker) == Runtime::Docker;
                let cluster = options.cluster.unwrap_or_else(|| agent::DEFAULT_CLUSTER.to_owned());
                let data_dir = options.data_dir.unwrap_or_else(|| agent::DEFAULT_DATA_DIR.into());
                Installed { data_dir, containers_of: docker.then_some(cluster) }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    enum Cli {
        Install(InstallArgs),
        Uninstall(UninstallArgs),
    }

    fn run(line: &str, root: &Path) -> anyhow::Result<()> {
        let words = line.split(' ').chain(["--root", root.to_str().expect("UTF-8")]);
        match Cli::try_parse_from(std::iter::once("quorate").chain(words)).expect("a command line") {
            Cli::Install(args) => install(args),
            Cli::Uninstall(args) => uninstall(args),
        }
    }

    #[test]
    fn an_installed_master_is_uninstalled_and_purged() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path();
        run("install server --init --advertise 10.0.0.1", root).expect("installed");
        let unit = fs::read_to_string(root.join("etc/systemd/system/quorate-server.service")).expect("a unit");
        assert!(unit.contains("ExecStart=/usr/local/bin/quorate server --config /etc/quorate/server.toml\n"), "{unit}");
        let config = root.join("etc/quorate/server.toml");
        let options: ServerOptions = toml::from_str(&fs::read_to_string(&config).expect("a file")).expect("options");
        assert_eq!((options.init, options.advertise.as_deref()), (Some(true), Some("10.0.0.1")));
        assert_eq!(fs::metadata(&config).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::metadata(root.join("usr/local/bin/quorate")).expect("a binary").permissions().mode() & 0o777,
            0o755
        );
        let data = root.join("var/lib/quorate/server");
        assert_eq!(fs::metadata(&data).expect("a directory").permissions().mode() & 0o777, 0o700);

        let refused = run("install server --init", root).expect_err("it is there").to_string();
        assert!(refused.contains("exists already"), "{refused}");
        run("uninstall", root).expect("removed");
        assert!(!config.exists() && data.exists());
        let refused = run("uninstall", root).expect_err("it is gone").to_string();
        assert!(refused.contains("nothing is installed"), "{refused}");
        run("install server --init", root).expect("installed again");
        run("uninstall server --purge --yes", root).expect("removed");
        assert!(!data.exists());
    }

    #[test]
    fn a_worker_is_installed_with_a_master_and_a_token() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let token = format!("{}.{}.{}", "0".repeat(8), "1".repeat(32), "2".repeat(64));
        let line = format!("install agent --server https://10.0.0.1:6443 --token {token} --data-dir /srv/q");
        run(&line, dir.path()).expect("installed");
        let unit = fs::read_to_string(dir.path().join("etc/systemd/system/quorate-agent.service")).expect("a unit");
        assert!(unit.contains("docker.service"), "{unit}");
        let text = fs::read_to_string(dir.path().join("etc/quorate/agent.toml")).expect("options");
        let options: AgentOptions = toml::from_str(&text).expect("options");
        assert_eq!(options.token, Some(token));
        run("uninstall agent --purge --yes", dir.path()).expect("removed");
        assert!(!dir.path().join("srv/q").exists());
    }

    #[test]
    fn bad_options_are_refused_before_anything_is_written() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let token = format!("{}.{}.{}", "0".repeat(8), "1".repeat(32), "2".repeat(64));
        let agent = format!("install agent --server https://10.0.0.1:6443 --token {token}");
        for (line, why) in [
            ("install agent", "no master is named"),
            ("install agent --server https://10.0.0.1:6443 --token 1.2.3", "not a join token"),
            ("install agent --server 10.0.0.1:6443", "not an https:// URL"),
            (&format!("{agent} --data-dir data"), "`data-dir`"),
            (&format!("{agent} --node-labels a"), "not key=value"),
            ("install server --init --data-dir data", "`data-dir`"),
            ("install server --init --advertise 10.0.0.1:6443", "`advertise`"),
            ("install server --init --service-cidr 10.96.0.1/16", "`service-cidr`"),
            ("install server --join TOKEN", "no token"),
        ] {
            let refused = format!("{:#}", run(line, dir.path()).expect_err("a refusal"));
            assert!(refused.contains(why) && !refused.contains('\n'), "{line}: {refused}");
            assert_eq!(fs::read_dir(dir.path()).expect("a directory").count(), 0, "{line}");
        }
    }

    #[test]
    fn an_interrupted_installation_is_repeated_or_undone() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path();
        // The configuration cannot be written, since there is a directory in its place.
        let config = root.join("etc/quorate/server.toml");
        fs::create_dir_all(config.with_extension("toml.partial")).expect("a directory");
        run("install server --init", root).expect_err("it cannot be written");
        let unit = root.join("etc/systemd/system/quorate-server.service");
        assert!(unit.exists() && !config.exists());
        fs::remove_dir(config.with_extension("toml.partial")).expect("removed");
        run("install server --init", root).expect("repeated");
        fs::remove_file(&unit).expect("removed");
        run("uninstall", root).expect("the rest is removed");
        assert!(!config.exists());
    }

    #[test]
    fn the_data_of_a_running_master_is_not_purged() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let root = dir.path();
        run("install server --init", root).expect("installed");
        let store = root.join("var/lib/quorate/server/store");
        fs::create_dir_all(&store).expect("a store");
        let lock = fs::File::create(store.join("lock")).expect("a lock file");
        lock.lock().expect("locked");
        let refused = run("uninstall --purge --yes", root).expect_err("it runs").to_string();
        assert!(refused.contains("stop its master first") && store.exists(), "{refused}");
        drop(lock);
        run("uninstall --purge --yes", root).expect("purged");
        assert!(!store.exists());
    }

    #[test]
    fn the_data_of_a_running_agent_is_not_purged() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let token = format!("{}.{}.{}", "0".repeat(8), "1".repeat(32), "2".repeat(64));
        let line = format!("install agent --server https://10.0.0.1:6443 --token {token} --data-dir /srv/q");
        run(&line, dir.path()).expect("installed");
        let data = dir.path().join("srv/q");
        let lock = fs::File::create(data.join(quorate_agent::AGENT_LOCK_FILE)).expect("a lock file");
        lock.lock().expect("locked");
        let refused = run("uninstall agent --purge --yes", dir.path()).expect_err("it runs").to_string();
        assert!(refused.contains("stop its agent first") && data.exists(), "{refused}");
        drop(lock);
        run("uninstall agent --purge --yes", dir.path()).expect("purged");
        assert!(!data.exists());
    }
}

//! The Docker engine and the images of the tests.

use std::process::Command;

use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::TryStreamExt;

pub const IMAGE: &str = "quorate/agent-test:1";

/// Connects to the engine. Returns `None` with a log message if none answers; in continuous integration it panics.
pub async fn docker() -> Option<Docker> {
    let engine = Docker::connect_with_unix(
        "/var/run/docker.sock",
        120,
        &bollard::ClientVersion { major_version: 1, minor_version: 41 },
    );
    let answers = match &engine {
        Ok(docker) => docker.ping().await.is_ok(),
        Err(_) => false,
    };
    if !answers {
        assert!(std::env::var_os("CI").is_none(), "no Docker engine answers");
        tracing::warn!("skipped: no Docker engine answers");
        return None;
    }
    let docker = engine.expect("it answered");
    ensure_image(&docker).await;
    Some(docker)
}

/// Returns the files of an image that contains only busybox, as a tar archive.
pub fn busybox() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let bin = dir.path().join("bin");
    std::fs::create_dir_all(&bin).expect("bin");
    std::fs::create_dir_all(dir.path().join("tmp")).expect("tmp");
    std::fs::copy("/bin/busybox", bin.join("busybox")).expect("the package busybox-static is installed");
    let names = Command::new("/bin/busybox").arg("--list").output().expect("busybox runs").stdout;
    for name in String::from_utf8(names).expect("names").lines().filter(|name| *name != "busybox") {
        std::os::unix::fs::symlink("busybox", bin.join(name)).expect("a link");
    }
    Command::new("tar").arg("c").arg("-C").arg(dir.path()).arg(".").output().expect("tar runs").stdout
}

async fn ensure_image(docker: &Docker) {
    import(docker, IMAGE, "").await;
}

/// Imports the same image under another name and with another user.
pub async fn ensure_image_of_user(docker: &Docker, name: &str, user: &str) {
    import(docker, name, &format!("USER {user}")).await;
}

async fn import(docker: &Docker, name: &str, change: &str) {
    // Each test is a process, and two concurrent imports of one name would leave an image without a name behind.
    let lock = std::fs::File::create(std::env::temp_dir().join("quorate-agent-test.lock")).expect("a lock file");
    lock.lock().expect("the lock is free soon");
    if docker.inspect_image(name).await.is_err() {
        let tar = busybox();
        let (repo, tag) = name.split_once(':').expect("a tag");
        let changes: Vec<String> = Some(change.to_owned()).filter(|change| !change.is_empty()).into_iter().collect();
        let options = CreateImageOptionsBuilder::default().from_src("-").repo(repo).tag(tag).changes(changes).build();
        let import = docker.create_image(Some(options), Some(bollard::body_full(tar.into())), None);
        import.try_for_each(|_| std::future::ready(Ok(()))).await.expect("the image is imported");
    }
}

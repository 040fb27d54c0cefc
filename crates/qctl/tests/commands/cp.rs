use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::exec::{end, input, objects, say, say_bytes};
use crate::server::{Behaviour, Server};

fn archive(name: &str, content: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o600);
    builder.append_data(&mut header, name, content.as_bytes()).expect("an entry");
    builder.into_inner().expect("an archive")
}

#[tokio::test]
async fn a_directory_in_the_container_gets_the_file_below_it() {
    let received = Arc::<Mutex<Vec<u8>>>::default();
    let sink = received.clone();
    let server = Server::start(Behaviour::answers(objects).serves(move |request, mut socket| {
        let sink = sink.clone();
        Box::pin(async move {
            if request.query.contains("command=tar") {
                let sent = input(&mut socket).await;
                sink.lock().unwrap_or_else(PoisonError::into_inner).extend(sent);
            }
            end(&mut socket, 0).await;
        })
    }))
    .await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "content").expect("writable");
    let ran = server.qctl(&["cp", file.to_str().expect("text"), "default/a:/tmp/", "-c", "main"], "").await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", ""));
    let queries: Vec<String> = server.requests().into_iter().map(|request| request.query).collect();
    assert_eq!(queries[1], "container=main&command=test&command=-d&command=/tmp/&stdout=true&stderr=true");
    assert!(queries[2].contains("&command=tar&command=-xmf&command=-&command=-C&command=/tmp&"), "{queries:?}");
    let received = received.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut archive = tar::Archive::new(&received[..]);
    let names: Vec<_> = archive
        .entries()
        .expect("entries")
        .map(|entry| entry.expect("an entry").path().expect("a name").into_owned())
        .collect();
    assert_eq!(names, [std::path::Path::new("file")]);
}

#[tokio::test]
async fn a_broken_copy_is_resumed() {
    let broke = Arc::new(AtomicBool::new(false));
    let server = Server::start(Behaviour::answers(objects).serves(move |request, mut socket| {
        let broke = broke.clone();
        Box::pin(async move {
            let archive = archive("tmp/file", &"x".repeat(5000));
            if broke.swap(true, Ordering::SeqCst) {
                assert!(request.query.contains("tail%20-c%2B2001"), "{}", request.query);
                say_bytes(&mut socket, 1, &archive[2000..]).await;
                // tar fills its last record.
                for _ in 0..100 {
                    say_bytes(&mut socket, 1, &[0; 10_240]).await;
                }
                end(&mut socket, 0).await;
            } else {
                // The connection is dropped without a farewell.
                say_bytes(&mut socket, 1, &archive[..2000]).await;
            }
        })
    }))
    .await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let target = directory.path().join("target");
    let ran =
        server.qctl(&["cp", "--retries=2", "a:/tmp/file", target.to_str().expect("text"), "-c", "main"], "").await;
    assert_eq!((ran.code, ran.stderr.as_str()), (0, "Resuming copy at 2000 bytes, retry 1/2\n"));
    assert_eq!(std::fs::read_to_string(&target).expect("the copy"), "x".repeat(5000));
}

#[tokio::test]
async fn refused_copies_say_why() {
    let server = Server::start(Behaviour::answers(objects).serves(|request, mut socket| {
        Box::pin(async move {
            if request.query.contains("command=/foreign") {
                say_bytes(&mut socket, 1, &archive("etc/passwd", "bad")).await;
                end(&mut socket, 0).await;
            } else if request.query.contains("command=/no-tar") {
                say(&mut socket, 1, "exec failed: tar: executable file not found\n").await;
                end(&mut socket, 127).await;
            } else {
                say(&mut socket, 2, "tar: /missing: Cannot stat: No such file or directory\n").await;
                end(&mut socket, 2).await;
            }
        })
    }))
    .await;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let target = directory.path().join("target").to_str().expect("text").to_owned();
    for (source, message) in [
        ("a:/foreign", "error: tar contents corrupted\n"),
        (
            "a:/no-tar",
            "error: cannot run tar in container main of pod a; cp needs a container with a tar program, such as one of `qctl debug`\n",
        ),
        ("a:/missing", "tar: /missing: Cannot stat: No such file or directory\ncommand terminated with exit code 2\n"),
        ("done:/x", "error: cannot exec into a container in a completed pod; current phase is Succeeded\n"),
        ("/nowhere", "error: one of src or dest must be a remote file specification\n"),
        ("a/b/c:/x", "error: filespec must match the canonical format: [[namespace/]pod:]file/path\n"),
    ] {
        let ran = server.qctl(&["cp", source, &target, "-c", "main"], "").await;
        assert_eq!((ran.code != 0, ran.stderr.as_str()), (true, message), "{source}");
        assert!(!std::path::Path::new(&target).exists(), "{source}");
    }
    let missing = server.qctl(&["cp", "/nowhere/at/all", "a:/tmp"], "").await;
    assert_eq!(missing.stderr, "error: /nowhere/at/all doesn't exist in local filesystem\n");
    assert_eq!(server.qctl(&["cp", "a:/x"], "").await.stderr, "error: source and destination are required\n");
}

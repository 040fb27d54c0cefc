use super::*;

fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let file = directory.join(name);
    std::fs::write(&file, text).expect("a temporary file");
    file
}

const FIRST: &str = "
apiVersion: v1
kind: Config
current-context: one
clusters:
- name: c1
  cluster:
    server: https://127.0.0.1:1001
    insecure-skip-tls-verify: true
    extensions:
    - name: quorate.io/masters
      extension: {servers: ['https://127.0.0.1:1002', 'https://127.0.0.1:1001', 'https://127.0.0.1:1003']}
contexts:
- name: one
  context: {cluster: c1, user: u1, namespace: blue}
users:
- name: u1
  user: {token: secret-one}
";

const SECOND: &str = "
apiVersion: v1
kind: Config
current-context: two
clusters:
- name: c1
  cluster: {server: 'https://ignored:1'}
- name: c2
  cluster: {server: 'https://127.0.0.1:2001', insecure-skip-tls-verify: true}
contexts:
- name: two
  context: {cluster: c2, user: u2}
users:
- name: u2
  user: {token: secret-two}
";

fn both(directory: &Path) -> Environment {
    let list = std::env::join_paths([
        write(directory, "first", FIRST),
        directory.join("missing"),
        write(directory, "second", SECOND),
    ])
    .expect("paths without colons");
    Environment { kubeconfig: Some(list), home: None }
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

#[test]
fn the_first_file_wins_and_missing_ones_are_skipped() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let environment = both(directory.path());
    let merged = load(&Overrides::default(), &environment).expect("two readable files");
    let connection = block_on(connect(merged, &Overrides::default())).expect("a complete context");
    let servers: Vec<String> = connection.configs.iter().map(|config| config.cluster_url.to_string()).collect();
    assert_eq!(servers, ["https://127.0.0.1:1001/", "https://127.0.0.1:1002/", "https://127.0.0.1:1003/"]);
    assert_eq!(connection.namespace, "blue");
}

#[test]
fn flags_override_the_files() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let environment = both(directory.path());
    let overrides = Overrides { context: Some("two".into()), ..Overrides::default() };
    let connection =
        block_on(connect(load(&overrides, &environment).expect("readable"), &overrides)).expect("complete");
    assert_eq!(connection.configs[0].cluster_url.to_string(), "https://127.0.0.1:2001/");
    assert_eq!(connection.namespace, "default");

    let overrides = Overrides { server: Some("https://127.0.0.1:9".into()), ..Overrides::default() };
    let connection =
        block_on(connect(load(&overrides, &environment).expect("readable"), &overrides)).expect("complete");
    assert_eq!(connection.configs.len(), 1, "--server names one server and no other is tried");
    assert_eq!(connection.configs[0].cluster_url.to_string(), "https://127.0.0.1:9/");
}

#[test]
fn unknown_names_are_refused_by_name() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let environment = both(directory.path());
    for (overrides, message) in [
        (Overrides { context: Some("x".into()), ..Overrides::default() }, "context \"x\" does not exist"),
        (Overrides { cluster: Some("x".into()), ..Overrides::default() }, "cluster \"x\" does not exist"),
    ] {
        let error =
            block_on(connect(load(&overrides, &environment).expect("readable"), &overrides)).expect_err("unknown");
        assert_eq!(error.to_string(), message);
    }
    let missing = Overrides { kubeconfig: Some(directory.path().join("missing")), ..Overrides::default() };
    let error = load(&missing, &environment).expect_err("a missing file");
    assert!(error.to_string().ends_with("missing: no such file or directory"), "{error}");
}

#[test]
fn without_any_file_the_error_names_the_places_that_were_searched() {
    let error = block_on(connect(Kubeconfig::default(), &Overrides::default())).expect_err("nothing to connect to");
    assert!(error.to_string().contains("quorate up"), "{error}");
}

#[test]
fn view_hides_secrets_and_use_context_changes_one_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let environment = both(directory.path());
    let overrides = Overrides::default();
    let merged = load(&overrides, &environment).expect("readable");
    let shown = view(&merged, false).expect("a document");
    assert_eq!(shown["users"][0]["user"]["token"], "REDACTED");
    assert_eq!(view(&merged, true).expect("a document")["users"][0]["user"]["token"], "secret-one");

    use_context(&files(&overrides, &environment), &merged, "two").expect("a known context");
    let again = load(&overrides, &environment).expect("readable");
    assert_eq!(again.current_context.as_deref(), Some("two"));
    assert_eq!(again.clusters.len(), 2, "the rest of the files stays");
    let error = use_context(&files(&overrides, &environment), &merged, "x").expect_err("unknown");
    assert_eq!(error.to_string(), "no context exists with the name: \"x\"");
}

#[test]
fn use_context_writes_through_a_link() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let elsewhere = directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a directory");
    let (link, target) = (directory.path().join("link"), elsewhere.join("config"));
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- name: a\n  context: {cluster: c, user: u}\n- name: b\n  context: {cluster: c, user: u}\n";
    std::fs::write(&target, text).expect("written");
    std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o640)).expect("permissions");
    std::os::unix::fs::symlink("elsewhere/config", &link).expect("a link");
    let overrides = Overrides { kubeconfig: Some(link.clone()), ..Overrides::default() };
    let merged = load(&overrides, &Environment::default()).expect("readable");

    use_context(&files(&overrides, &Environment::default()), &merged, "b").expect("a known context");
    assert!(link.symlink_metadata().expect("the link").is_symlink(), "the link is not replaced by a file");
    assert!(std::fs::read_to_string(&target).expect("the file").contains("current-context: b"));
    assert_eq!(std::fs::metadata(&target).expect("the file").permissions().mode() & 0o777, 0o640);
    assert_eq!(std::fs::read_dir(&elsewhere).expect("the directory").count(), 1, "no temporary file is left");
}

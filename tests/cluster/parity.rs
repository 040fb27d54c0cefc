//! Comparison of `qctl` with the `kubectl` on PATH: equal commands on equal objects have the same output, and both
//! succeed or both fail.

use harness::{Cluster, Output, Runtime, Spec, eventually, kubectl_is_recent, run};

use crate::demo_path::web;

const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: one}}
spec:
  containers: [{name: main, image: 'x:1'}]
";
const MAP: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: c1}
data: {a: '1'}
";

/// Runs every command with both tools, each in its own namespace, and collects the differences.
struct Pair<'a> {
    cluster: &'a Cluster,
    differences: Vec<String>,
}

impl Pair<'_> {
    const NAMESPACES: [&'static str; 2] = ["by-kubectl", "by-qctl"];

    fn each(&self, args: &[&str], input: &str) -> [Output; 2] {
        let commands = [self.cluster.kubectl_command(), self.cluster.qctl_command()];
        let mut outputs = commands.into_iter().zip(Self::NAMESPACES).map(|(mut command, namespace)| {
            command.arg("--namespace").arg(namespace);
            command.args(args.iter().map(|word| word.replace("@NAMESPACE", namespace)));
            run(&mut command, input)
        });
        [outputs.next().expect("the output of kubectl"), outputs.next().expect("the output of qctl")]
    }

    /// Compares the outputs of both tools. The command line is split at spaces.
    fn says(&mut self, line: &str, input: &str) {
        let args: Vec<&str> = line.split(' ').collect();
        self.says_args(&args, input);
    }

    fn says_args(&mut self, args: &[&str], input: &str) {
        let [kubectl, qctl] = self.each(args, input);
        let same = kubectl.success == qctl.success
            && settled(&kubectl.stdout) == settled(&qctl.stdout)
            && settled(&kubectl.stderr) == settled(&qctl.stderr);
        if !same {
            let both = |output: &Output| format!("{}\n{}", output.stdout, output.stderr);
            self.differences.push(format!("{args:?}\n--- kubectl\n{}\n--- qctl\n{}", both(&kubectl), both(&qctl)));
        }
    }

    /// Waits until a command succeeds in both namespaces and prints `expected`.
    fn eventually(&self, args: &[&str], expected: &str) {
        eventually(&format!("{args:?}"), || {
            let outputs = self.each(args, "");
            if outputs.iter().all(|output| output.success && output.stdout == expected) { Ok(()) } else { Err(outputs) }
        });
    }
}

/// Normalizes everything that differs between two equal objects: namespaces, generated names, ages, times, and the
/// order of events, which may have the same second.
fn settled(text: &str) -> Vec<Vec<String>> {
    let line = |line: &str| -> Vec<String> {
        let key = line.trim_start().trim_start_matches('"');
        if ["creationTimestamp", "resourceVersion", "uid"].iter().any(|known| key.starts_with(known)) {
            return key.split(':').next().map(str::to_owned).into_iter().collect();
        }
        line.split_whitespace().map(word).collect()
    };
    let mut lines: Vec<_> = text.lines().map(line).collect();
    for rows in lines.chunk_by_mut(|a, b| is_event(a) && is_event(b)) {
        rows.sort();
    }
    lines
}

/// Whether the row is an event: `describe` prints its type first, `events` after its age.
fn is_event(words: &[String]) -> bool {
    words.iter().take(2).any(|word| word == "Normal" || word == "Warning")
}

fn word(word: &str) -> String {
    let is_age = word.ends_with(['s', 'm'])
        && word.starts_with(|c: char| c.is_ascii_digit())
        && word.chars().all(|c| c.is_ascii_digit() || c == 's' || c == 'm');
    if is_age {
        return "AGE".to_owned();
    }
    // The two objects may have been created in different seconds.
    let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    if shape.contains("00:00:00") {
        return "TIME".to_owned();
    }
    let mut word = word.replace("by-kubectl", "NAMESPACE").replace("by-qctl", "NAMESPACE");
    word = word.replace("kubectl", "ctl").replace("qctl", "ctl");
    // Generated names: `web-` and a suffix of the controllers.
    if let Some(at) = word.find("web-") {
        let end = word[at..].find(|c: char| !c.is_ascii_alphanumeric() && c != '-').map_or(word.len(), |n| at + n);
        word.replace_range(at..end, "web-POD");
    }
    // Ids and addresses of hollow pods.
    if word.starts_with("hollow://") {
        return "ID".to_owned();
    }
    if word.starts_with("10.") && word.chars().all(|c| c.is_ascii_digit() || c == '.') { "IP".to_owned() } else { word }
}

#[test]
fn qctl_prints_the_same_as_kubectl() {
    if !kubectl_is_recent() {
        return;
    }
    let cluster = Cluster::start(Spec { masters: 1, workers: 1, runtime: Runtime::Hollow, flags: vec![] });
    let mut pair = Pair { cluster: &cluster, differences: Vec::new() };
    create_and_apply(&mut pair);
    pair.eventually(&["get", "deploy", "web", "-o", "jsonpath={.status.readyReplicas}/{.status.replicas}"], "2/2");
    pair.eventually(&["wait", "pod", "one", "--for=condition=Ready"], "pod/one condition met\n");
    read(&mut pair);
    change(&mut pair);
    roll(&mut pair);
    delete(&mut pair);
    assert!(pair.differences.is_empty(), "{} differences\n{}", pair.differences.len(), pair.differences.join("\n\n"));
}

fn maps() -> String {
    format!("{MAP}---{}", MAP.replace("c1", "c2"))
}

fn create_and_apply(pair: &mut Pair<'_>) {
    let (web, maps) = (web(2), maps());
    pair.says("create namespace @NAMESPACE", "");
    pair.says("create namespace @NAMESPACE", "");
    pair.says("apply -f -", &web);
    pair.says("apply -f -", &web);
    pair.says("apply -f -", &web.replace("replicas: 2", "replicas: 3"));
    pair.says("apply -f - --dry-run=server", &web);
    pair.says("apply -f -", &web);
    pair.says("apply -f - -o name", &web);
    let refused = web.replace("app: web\n  strategy", "app: other\n  strategy");
    pair.says("apply -f -", &refused);
    pair.says("apply -f /no/such/file.yaml", "");
    pair.says("apply", "");
    pair.says("apply -f -", "");
    pair.says("apply -f -", &POD.replace("image:", "imag:"));
    pair.says("apply -f -", &MAP.replace("name: c1", "name: c1, namespace: nowhere"));

    pair.says("create -f -", POD);
    pair.says("create -f -", POD);
    pair.says("create -f -", &POD.replace("name: one,", "name: One_,"));
    pair.says("create -f -", &maps);
    pair.says("create -f -", &maps);
    pair.says("create -f -", "");
    pair.says("create", "");
    // The object was created without `apply`.
    pair.says("apply -f -", MAP);
    for what in ["configmap c3", "secret generic s3"] {
        let line = format!("create {what} --from-literal=a=b");
        pair.says(&line, "");
        pair.says(&line, "");
    }
    for what in ["serviceaccount sa1", "deployment d4 --image=x:1 --replicas=0"] {
        let line = format!("create {what}");
        pair.says(&line, "");
        pair.says(&line, "");
    }
    pair.says("run r1 --image=x:1", "");
    pair.says("run r1 --image=x:1", "");
}

fn read(pair: &mut Pair<'_>) {
    for goal in ["condition=Ready", "condition=Absent", "jsonpath={.status.phase}=Running", "delete"] {
        pair.says(&format!("wait pod one --for={goal} --timeout=0"), "");
    }
    for what in ["pods", "pods,deploy", "nodes", "pods one nobody"] {
        for flags in ["", " -o wide", " -o name", " --no-headers", " --show-labels"] {
            pair.says(&format!("get {what}{flags}"), "");
        }
    }
    for what in ["rs", "cm", "secret", "sa", "svc", "ep", "leases", "all", "po/one", "deployment/web cm/c1"] {
        pair.says(&format!("get {what}"), "");
    }
    for what in ["cm/c1", "secret/s3", "deploy/d4", "sa/sa1", "nodes", "cm/c1 secret/s3"] {
        for format in ["yaml", "json"] {
            pair.says(&format!("get {what} -o {format}"), "");
        }
    }
    for path in [
        "{.items[*].status.phase}",
        "{range .items[*]}{.status.phase}{\"\\t\"}{.spec.nodeName}{\"\\n\"}{end}",
        "{.items[?(@.metadata.name==\"one\")].metadata.labels.app}",
        "{.items[0].nothing}",
        "{.items[",
        "{.items",
    ] {
        pair.says_args(&["get", "pods", "-o", &format!("jsonpath={path}")], "");
    }
    pair.says("get pods -o custom-columns=NAME:.metadata.name,PHASE:.status.phase,X:.nothing", "");
    pair.says("get cm --sort-by=.metadata.name -o name", "");
    pair.says("get pods -l app=web -L app", "");
    pair.says("get pod nobody", "");
    pair.says("get pod nobody --ignore-not-found", "");
    pair.says("get pods -l app=nothing", "");
    pair.says("get pods -l app=nothing -o json", "");
    pair.says("get pods --field-selector metadata.name=one -o name", "");
    pair.says("get pods one -l app=one", "");
    pair.says("get -f - -o name", &maps());
    pair.says("get --raw /version", "");
    for what in [
        "pods",
        "pod.spec.containers --recursive",
        "deploy.spec.strategy.rollingUpdate",
        "node.status.capacity",
        "cm.data",
        "pod.spec.nothing",
    ] {
        pair.says(&format!("explain {what}"), "");
    }
    pair.says("get deploy web --subresource=scale -o jsonpath={.spec.replicas}", "");

    for what in ["cm c1", "secret s3", "sa sa1", "pod one", "pod nobody", "pods -l app=nothing", "deploy d4"] {
        pair.says(&format!("describe {what}"), "");
    }
    pair.says("events --for pod/one", "");
    pair.says("events --for pod/nobody", "");
    pair.says("logs nobody", "");
    pair.says("logs deployment/nobody", "");
    pair.says("wait pod/one --for=condition=Ready --timeout=60s", "");
    pair.says("wait pod/nobody --for=condition=Ready --timeout=60s", "");
    pair.says("wait pod/nobody --for=delete --timeout=60s", "");
    pair.says("wait pod/one --for=condition=Nothing --timeout=1s", "");
}

fn change(pair: &mut Pair<'_>) {
    for line in [
        "label pod one x=y",
        "label pod one x=y",
        "label pod one x=z",
        "label pod one x=z --overwrite",
        "label pod one x-",
        "label pod one x-",
        "label pod one",
        "label pod nobody x=y",
        "label pods x=y",
        "label pods -l app=one x=y",
        "label pod one q=r --dry-run=server",
        "label pod one q=r q-",
        "annotate pod one x=y",
        "annotate pod one x=z",
        "annotate pod one x=z --overwrite",
        "annotate pod one x-",
        "annotate pod one x-",
        "annotate pod nobody x=y",
        "annotate pod one q=r q-",
        "scale deployment/web --replicas=3",
        "scale deployment/web --replicas=2",
        "scale deployment/nobody --replicas=3",
        "scale deployment nobody --replicas=3",
        "scale deploy web --replicas=2 --current-replicas=7",
        "scale deploy web d4 nobody --replicas=2",
        "scale deploy -l app=nothing --replicas=2",
        "scale deploy web --replicas=-1",
        "scale deploy web --replicas=5 --dry-run=server",
        "scale deploy web --replicas=2 -o name",
        "patch deploy web -p {\"spec\":{\"minReadySeconds\":1}}",
        "patch deploy web -p {\"spec\":{\"minReadySeconds\":1}}",
        "patch deploy web --type=merge -p {\"spec\":{\"minReadySeconds\":0}}",
        "patch deploy web --type=json -p [{\"op\":\"test\",\"path\":\"/spec/minReadySeconds\",\"value\":7}]",
        "patch deploy nobody -p {}",
        "patch deploy web",
        "patch deploy web -p {\"spec\":{\"replicas\":-1}}",
        "cordon nobody",
        "uncordon nobody",
        "uncordon worker-1",
        "drain nobody",
        "taint node worker-1 a",
    ] {
        pair.says(line, "");
    }
    pair.says("label -f - from=file", POD);
    pair.says("scale -f - --replicas=2", "");
}

fn roll(pair: &mut Pair<'_>) {
    let updated = [
        "get",
        "deploy",
        "web",
        "-o",
        "jsonpath={.status.updatedReplicas}/{.status.replicas}/{.status.availableReplicas}",
    ];
    pair.eventually(&updated, "2/2/2");
    for line in [
        "rollout status deployment/web",
        "rollout status deployment/nobody",
        "rollout status pod/one",
        "rollout history deployment/web",
        "rollout history deployment/web --revision=9",
        "rollout history deployment/nobody",
        "rollout undo deployment/web",
        "set image deployment/web httpd=x:2",
        "set image deployment/web httpd=x:2",
        "set image deployment/nobody httpd=x:2",
    ] {
        pair.says(line, "");
    }
    pair.eventually(&updated, "2/2/2");
    for line in [
        "rollout history deployment/web",
        "rollout undo deployment/web --dry-run=server",
        "rollout undo deployment/web --to-revision=77",
        "rollout undo deployment/web",
        "rollout undo deployment/nobody",
        "rollout pause deployment/web",
        "rollout pause deployment/web",
        "rollout restart deployment/web",
        "rollout resume deployment/web",
        "rollout resume deployment/web",
        "rollout restart deployment/web",
        "rollout restart pod/one",
        "rollout pause pod/one",
        "rollout restart deployment/nobody",
    ] {
        pair.says(line, "");
    }
    pair.eventually(&updated, "2/2/2");
}

fn delete(pair: &mut Pair<'_>) {
    for line in [
        "delete pod nobody",
        "delete pod nobody --ignore-not-found",
        "delete pods -l app=nothing",
        "delete pod one --grace-period=0",
        "delete pod r1 --grace-period=0 --force",
        "delete cm c1 c3 nobody",
        "delete deploy web --dry-run=server",
        "delete deploy web --dry-run=client",
        "delete sa sa1 -o name",
        "delete deploy/d4 secret/s3",
        "delete cm x -l a=b",
        "delete cm x --all",
        "delete ns nowhere",
        "delete -f /no/such/file.yaml",
    ] {
        pair.says(line, "");
    }
    let web = web(2);
    pair.says("delete -f -", &web);
    pair.says("delete -f -", &web);
    pair.says("delete -f - --ignore-not-found", &web);
    pair.says("delete secret --all", "");
    pair.says("delete namespace @NAMESPACE", "");
}

//! Commands about objects of any kind.

use std::fs;

use harness::Lines;

use super::Kubectl;

/// The forms of `kubectl create`, as the command, the created objects' names in order, and what `describe` shows of it.
const CREATED: &[(&str, &str, &str)] = &[
    (
        "clusterrole readers --verb=get,list --resource=pods,deployments.apps",
        "clusterrole.rbac.authorization.k8s.io/readers",
        "PolicyRule:",
    ),
    (
        "clusterrolebinding readers --clusterrole=readers --user=u --group=g",
        "clusterrolebinding.rbac.authorization.k8s.io/readers",
        "Subjects:",
    ),
    ("configmap made --from-literal=a=1", "configmap/made", "Data\n===="),
    ("cronjob made --image=x:1 --schedule='*/5 * * * *' -- date", "cronjob.batch/made", "Schedule:"),
    ("deployment made --image=x:1 --replicas=0 --port=80", "deployment.apps/made", "StrategyType:"),
    ("ingress made --class=none --rule=host/path=made:80", "ingress.networking.k8s.io/made", "Rules:"),
    ("job made --image=x:1 -- date", "job.batch/made", "Parallelism:"),
    ("job from --from=cronjob/made", "job.batch/from", "Controlled By:"),
    ("namespace other", "namespace/other", "Status:       Active"),
    (
        "poddisruptionbudget made --selector=app=none --min-available=1",
        "poddisruptionbudget.policy/made",
        "Min available:",
    ),
    ("priorityclass made --value=7 --description=seven", "priorityclass.scheduling.k8s.io/made", "seven"),
    ("quota made --hard=count/cronjobs.batch=9", "resourcequota/made", "count/cronjobs.batch"),
    ("role made --verb=get --resource=pods --resource-name=one", "role.rbac.authorization.k8s.io/made", "PolicyRule:"),
    (
        "rolebinding made --role=made --serviceaccount=team:made",
        "rolebinding.rbac.authorization.k8s.io/made",
        "ServiceAccount",
    ),
    (
        "secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p",
        "secret/pull",
        ".dockerconfigjson:",
    ),
    ("secret generic made --from-literal=a=1", "secret/made", "Opaque"),
    ("secret tls pair --cert=CERT --key=KEY", "secret/pair", "kubernetes.io/tls"),
    ("service clusterip inner --tcp=80:8080", "service/inner", "ClusterIP"),
    ("service externalname outer --external-name=example.com", "service/outer", "example.com"),
    ("service loadbalancer front --tcp=80", "service/front", "LoadBalancer"),
    ("service nodeport door --tcp=80", "service/door", "NodePort:"),
    ("serviceaccount made", "serviceaccount/made", "Image pull secrets:"),
];

pub fn objects_of_every_kind_are_created(kubectl: &Kubectl<'_>) {
    let pki = kubectl.cluster.dir().join("pki");
    for (form, name, described) in CREATED {
        let file = |name: &str| pki.join(name).display().to_string();
        let form = form.replace("CERT", &file("admin.crt")).replace("KEY", &file("admin.key"));
        kubectl.says(&format!("create {form}"), &format!("{name} created\n"));
        kubectl.says(&format!("get {name} -o name"), &format!("{name}\n"));
        kubectl.shows(&format!("describe {name}"), &[described]);
        kubectl.shows(&format!("get {name}"), &["NAME"]);
    }
    kubectl.fails("create configmap made", "configmaps \"made\" already exists");
    kubectl.says("create configmap tried --dry-run=server -o name", "configmap/tried\n");
    kubectl.fails("get configmap tried", "Error from server (NotFound): configmaps \"tried\" not found");
    let two = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: two}\n";
    assert_eq!(kubectl.given("create -f - --validate=strict", two), "configmap/two created\n");
    let three = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"three"}}"#;
    kubectl.given("create --raw /api/v1/namespaces/team/configmaps -f -", three);
    let misspelt = kubectl.run("create -f - --validate=strict", &two.replace("metadata:", "dta: {}\nmetadata:"));
    assert!(misspelt.stderr.contains("unknown field \"dta\""), "{misspelt:?}");
}

pub fn objects_are_read_in_every_format(kubectl: &Kubectl<'_>) {
    kubectl.shows("get configmaps made two", &["NAME", "DATA", "AGE", "made", "1", "two", "0"]);
    kubectl.shows("get deploy -o wide", &["READY", "SELECTOR", "made", "0/0", "x:1", "app=made"]);
    kubectl.shows("get cm made -o yaml", &["apiVersion: v1\ndata:\n  a: \"1\"\nkind: ConfigMap\n"]);
    kubectl
        .shows("get cm made -o json --show-managed-fields", &["\"managedFields\"", "\"manager\": \"kubectl-create\""]);
    kubectl.says("get cm made -o jsonpath={.data.a}", "1");
    kubectl.says("get cm made -o go-template={{.data.a}}", "1");
    kubectl.says("get cm made -o custom-columns=N:.metadata.name,A:.data.a --no-headers", "made   1\n");
    kubectl.says("get cm,secret -l none=none -o name", "");
    kubectl.says("get cm --field-selector metadata.name=two -o name", "configmap/two\n");
    kubectl.says("get svc --field-selector spec.type=NodePort -o name", "service/door\n");
    kubectl.says(
        "get cm --sort-by=.metadata.name -o name --chunk-size=1",
        "configmap/kube-root-ca.crt\nconfigmap/made\nconfigmap/three\nconfigmap/two\n",
    );
    kubectl.shows("get cm -A --show-kind --show-labels", &["NAMESPACE", "LABELS", "team", "configmap/made", "<none>"]);
    kubectl.shows("get all", &["service/door", "deployment.apps/made", "cronjob.batch/made", "job.batch/made"]);
    kubectl.shows("get cm/made secret/made", &["configmap/made", "secret/made"]);
    kubectl.says("get cm nobody --ignore-not-found", "");
    kubectl.says("get deploy made --subresource=scale -o jsonpath={.spec.replicas}", "0");
    let format = "{.type} {.object.metadata.name}{\"\\n\"}";
    let mut watch =
        Lines::start(&mut kubectl.command(&format!("get cm -w --output-watch-events -o 'jsonpath={format}'")));
    watch.until("the objects", |line| line == "ADDED two");
    kubectl.says("create configmap watched", "configmap/watched created\n");
    watch.until("an added object", |line| line == "ADDED watched");
    kubectl.shows("delete configmap watched", &["configmap \"watched\" deleted"]);
    watch.until("a deleted object", |line| line == "DELETED watched");
}

pub fn objects_are_changed(kubectl: &Kubectl<'_>) {
    kubectl.says("label cm made x=y", "configmap/made labeled\n");
    kubectl.fails("label cm made x=z", "'x' already has a value (y), and --overwrite is false");
    kubectl.says(
        "label cm made x=z --overwrite --resource-version=1 --dry-run=client",
        "configmap/made labeled (dry run)\n",
    );
    kubectl.fails("label cm made x=z --overwrite --resource-version=1", "the object has been modified");
    kubectl.says("label cm -l x=y x=z --overwrite", "configmap/made labeled\n");
    kubectl.says("label cm made --list", "x=z\n");
    kubectl.says("label cm made x-", "configmap/made unlabeled\n");
    kubectl.says(
        "label --all cm all=yes -o name --dry-run=server",
        "configmap/kube-root-ca.crt\nconfigmap/made\nconfigmap/three\nconfigmap/two\n",
    );
    kubectl.says("annotate cm made note=kept", "configmap/made annotated\n");
    kubectl.says("annotate cm made --list", "note=kept\n");
    kubectl.says("annotate cm made note-", "configmap/made annotated\n");

    kubectl.says("patch cm made -p '{\"data\":{\"b\":\"2\"}}'", "configmap/made patched\n");
    kubectl.says("patch cm made --type=merge -p '{\"data\":{\"b\":null}}'", "configmap/made patched\n");
    kubectl.says("patch cm made -p {}", "configmap/made patched (no change)\n");
    kubectl.says(
        "patch cm made --type=json -p '[{\"op\":\"add\",\"path\":\"/data/c\",\"value\":\"3\"}]'",
        "configmap/made patched\n",
    );
    kubectl.says("get cm made -o jsonpath={.data}", "{\"a\":\"1\",\"c\":\"3\"}");
    kubectl.says("patch deploy made --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":1}}' -o jsonpath={.spec.replicas}", "1");
    kubectl.says("patch deploy made --type=merge -p '{\"spec\":{\"replicas\":0}}'", "deployment.apps/made patched\n");
    kubectl.says(
        "patch pdb made --subresource=status --type=merge -p '{\"status\":{\"expectedPods\":3}}'",
        "poddisruptionbudget.policy/made patched\n",
    );
    kubectl.says("get pdb made -o jsonpath={.status.expectedPods}", "3");

    let made = kubectl.ok("get cm made -o yaml").replace("a: \"1\"", "a: \"9\"");
    assert_eq!(kubectl.given("replace -f -", &made), "configmap/made replaced\n");
    let stale = kubectl.run("replace -f -", &made);
    assert!(!stale.success && stale.stderr.contains("the object has been modified"), "{stale:?}");
    let uid = || kubectl.ok("get cm made -o jsonpath={.metadata.uid}");
    let before = uid();
    kubectl.given("replace --force -f -", &made);
    assert_ne!(uid(), before);
    let mut edit = kubectl.command("edit cm made");
    let edited = harness::run(edit.env("KUBE_EDITOR", r#"sed -i 's/a: "9"/a: "10"/'"#), "");
    assert_eq!(edited.ok(), "configmap/made edited\n");
    kubectl.says("get cm made -o jsonpath={.data.a}", "10");
    let mut edit = kubectl.command("edit deploy made --subresource=scale");
    let edited = harness::run(edit.env("KUBE_EDITOR", "sed -i s/nothing/else/"), "");
    assert!(edited.success && edited.stderr.contains("no changes made"), "{edited:?}");
}

fn settings(data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\n  labels: {{app: settings}}\ndata: {data}\n")
}

pub fn configurations_are_applied(kubectl: &Kubectl<'_>) {
    let (one, two) = (settings("{a: '1', b: '1'}"), settings("{a: '2'}"));
    let differs = kubectl.run("diff -f -", &one);
    assert!(!differs.success && differs.stdout.contains("+  name: settings"), "{differs:?}");
    assert_eq!(kubectl.given("apply -f -", &one), "configmap/settings created\n");
    assert_eq!(kubectl.given("diff -f -", &one), "");
    assert_eq!(kubectl.given("apply -f -", &one), "configmap/settings unchanged\n");
    let differs = kubectl.run("diff -f -", &two);
    assert!(differs.stdout.contains("-  b: \"1\"\n") && differs.stdout.contains("+  a: \"2\"\n"), "{differs:?}");
    assert_eq!(kubectl.given("apply -f - --dry-run=server", &two), "configmap/settings configured (server dry run)\n");
    assert_eq!(kubectl.given("apply -f -", &two), "configmap/settings configured\n");
    kubectl.says("get cm settings -o jsonpath={.data}", "{\"a\":\"2\"}");
    kubectl.shows("apply view-last-applied cm/settings", &["data:\n  a: \"2\"\n"]);
    assert_eq!(kubectl.given("apply set-last-applied -f -", &one), "configmap/settings configured\n");
    kubectl.shows("apply view-last-applied cm/settings -o json", &["\"b\": \"1\""]);
    let mut edit = kubectl.command("apply edit-last-applied cm/settings");
    let edited = harness::run(edit.env("KUBE_EDITOR", "sed -i s/b:/z:/"), "");
    assert_eq!(edited.ok(), "configmap/settings edited\n");
    kubectl.shows("apply view-last-applied cm/settings", &["z: \"1\""]);

    let applied = kubectl.given("apply -f - --server-side --field-manager=one --force-conflicts", &one);
    assert_eq!(applied, "configmap/settings serverside-applied\n");
    let refused = kubectl.run("apply -f - --server-side --field-manager=two", &two);
    assert!(refused.stderr.contains("Apply failed with 1 conflict: conflict with \"one\": .data.a"), "{refused:?}");
    let differs = kubectl.run("diff -f - --server-side --field-manager=one", &two);
    assert!(!differs.success && differs.stdout.contains("-  b: \"1\"\n"), "{differs:?}");

    // Pruning deletes what was applied with these labels and is not given any more.
    let prune = "apply -f - --prune -l app=settings --prune-allowlist=core/v1/ConfigMap";
    let other = one.replace("name: settings", "name: settings-two");
    kubectl.given(prune, &format!("{one}---\n{other}"));
    let pruned = kubectl.given(prune, &other);
    assert!(pruned.contains("configmap/settings pruned"), "{pruned}");

    let folder = kubectl.cluster.dir().join("kustomized");
    fs::create_dir_all(&folder).expect("the directory is ours");
    let text = "configMapGenerator: [{name: kustomized, literals: [a=1]}]\nnamespace: team\n";
    fs::write(folder.join("kustomization.yaml"), text).expect("the directory is ours");
    let folder = folder.display();
    kubectl.shows(&format!("apply -k {folder}"), &["configmap/kustomized-", " created\n"]);
    kubectl.shows(&format!("get -k {folder} -o name"), &["configmap/kustomized-"]);
    kubectl.shows(&format!("delete -k {folder}"), &["configmap \"kustomized-", "\" deleted"]);
}

pub fn objects_are_deleted(kubectl: &Kubectl<'_>) {
    kubectl
        .shows("delete cm settings-two --dry-run=server", &["configmap \"settings-two\" deleted", "(server dry run)"]);
    kubectl.shows("delete cm -l app=settings", &["configmap \"settings-two\" deleted"]);
    kubectl.shows("delete cm/two secret/made", &["configmap \"two\" deleted", "secret \"made\" deleted"]);
    let three = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: three}\n";
    assert!(kubectl.given("delete -f -", three).contains("configmap \"three\" deleted"));
    kubectl.fails("delete cm three", "configmaps \"three\" not found");
    kubectl.says("delete cm three --ignore-not-found", "");
    kubectl.says("delete cm made -o name --wait=false", "configmap/made\n");
    kubectl.ok("delete --raw /api/v1/namespaces/team/secrets/pair");
    kubectl.fails("get secret pair", "not found");
    kubectl.shows("delete jobs --all --cascade=orphan", &["job.batch \"from\" deleted", "job.batch \"made\" deleted"]);
    kubectl.shows("delete namespace other --timeout=60s", &["namespace \"other\" deleted"]);
    kubectl.says("wait namespace/other --for=delete --timeout=60s", "");
    kubectl.shows("delete clusterrole,clusterrolebinding readers --now", &["\"readers\" deleted"]);
}

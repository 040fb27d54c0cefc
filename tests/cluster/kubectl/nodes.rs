//! Commands about nodes.

use super::Kubectl;

pub fn nodes_are_cordoned_tainted_and_drained(kubectl: &Kubectl<'_>) {
    kubectl.shows("get nodes -o wide", &["INTERNAL-IP", "CONTAINER-RUNTIME", "worker-1", "Ready", "docker://"]);
    kubectl.shows("describe node worker-1", &["Allocatable:", "Non-terminated Pods:", "stays", "Allocated resources:"]);
    kubectl.says("cordon worker-1", "node/worker-1 cordoned\n");
    kubectl.says("cordon worker-1", "node/worker-1 already cordoned\n");
    kubectl.shows("get node worker-1", &["Ready,SchedulingDisabled"]);
    kubectl.says("uncordon worker-1", "node/worker-1 uncordoned\n");
    kubectl.says("taint node worker-1 key=value:PreferNoSchedule", "node/worker-1 tainted\n");
    kubectl.fails("taint node worker-1 key=other:PreferNoSchedule", "already has key");
    kubectl.says("taint node worker-1 key=other:PreferNoSchedule --overwrite", "node/worker-1 modified\n");
    kubectl.says("taint node worker-1 key-", "node/worker-1 untainted\n");
    kubectl.says("label node worker-1 disk=fast", "node/worker-1 labeled\n");
    kubectl.says("get nodes -l disk=fast -o name", "node/worker-1\n");

    kubectl.fails("drain worker-1 --pod-selector=app=stays", "declare no controller");
    let drained = kubectl.ok("drain worker-1 --pod-selector=app=stays --force --grace-period=0 --timeout=60s");
    assert!(drained.contains("evicting pod team/stays") || drained.contains("pod/stays evicted"), "{drained}");
    kubectl.fails("get pod stays", "pods \"stays\" not found");
    kubectl.says("uncordon worker-1", "node/worker-1 uncordoned\n");
}

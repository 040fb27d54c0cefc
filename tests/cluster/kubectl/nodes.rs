//! Commands about nodes, and about the certificates that they ask for.

use super::Kubectl;

/// A PKCS#10 request, in base64 of PEM.
const REQUEST: &str = "\
    LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlIS01ISUNBUUF3RURFT01Bd0dBMVVFQXd3RllXZGxiblF3V1RB\
    VEJnY3Foa2pPUFFJQkJnZ3Foa2pPUFFNQgpCd05DQUFTSXBFRDRBNmY0UnkrdyswaHFRL29GODN4QkdJcXlEd21ubTFYaHhOUFBZ\
    UFdpYWVpN1o2WFdyRjY5CmdibEEycnJLMVBtaXkzTHdnSnd4bDY0R3AzQzhvQUF3Q2dZSUtvWkl6ajBFQXdJRFNBQXdSUUloQU82\
    V1ZPSkIKLzMvOWpURURtSjRIVFUwRDEvYUUrbDJqdHloMVJjT01HWklaQWlCOWtoSmZXNHZTbDIxTm5MY1U5ajV3c1NGNQpPMUZD\
    d2NLMmlCRjVYVSt6ZWc9PQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";

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

pub fn signing_requests_are_decided(kubectl: &Kubectl<'_>) {
    for name in ["good", "bad"] {
        let request = format!(
            "apiVersion: certificates.k8s.io/v1\nkind: CertificateSigningRequest\nmetadata: {{name: {name}}}\nspec: \
             {{request: {REQUEST}, signerName: example.com/agents, usages: [client auth]}}\n"
        );
        let created = format!("certificatesigningrequest.certificates.k8s.io/{name} created\n");
        assert_eq!(kubectl.given("create -f -", &request), created);
    }
    kubectl.says("certificate approve good", "certificatesigningrequest.certificates.k8s.io/good approved\n");
    kubectl.says("certificate deny bad", "certificatesigningrequest.certificates.k8s.io/bad denied\n");
    kubectl.shows("get csr", &["bad", "example.com/agents", "Denied", "good", "Approved"]);
    kubectl.fails("certificate deny good", "is already Approved");
    kubectl.ok("delete csr good bad");
}

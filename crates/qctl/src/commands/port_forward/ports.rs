//! Which port of the pod a command line means: a number, a name, or a port of a Service. Pure.

use serde_json::Value;

use crate::error::{CliError, Result};

/// A local port and the pod's port to which it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// 0 for any free port.
    pub local: u16,
    pub remote: u16,
}

/// Resolves `[LOCAL:]REMOTE`. `named` is the object of the command line, `pod` the pod that it selects.
///
/// # Errors
/// When the text is malformed, or the Service or pod has no such port for TCP.
pub fn resolve(text: &str, named: &Value, pod: &Value) -> Result<Forwarded> {
    let (local, remote) = match text.split(':').collect::<Vec<_>>().as_slice() {
        [port] => (None, *port),
        [local, remote] => (Some(*local), *remote),
        _ => return Err(CliError::usage(format!("invalid port format '{text}'"))),
    };
    if remote.is_empty() {
        return Err(CliError::usage("remote port cannot be empty"));
    }
    let is_service = named["kind"] == "Service";
    let (asked, remote) = if is_service { of_service(remote, named, pod)? } else { of_pod(remote, pod)? };
    let local = match local {
        None => asked,
        Some("") => 0,
        Some(local) => {
            local.parse().map_err(|error| CliError::usage(format!("error parsing local port '{local}': {error}")))?
        }
    };
    Ok(Forwarded { local, remote })
}

fn number(text: &str) -> Option<Result<u16>> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| match text.parse() {
        Ok(0) => Err(CliError::usage("remote port must be > 0")),
        Ok(port) => Ok(port),
        Err(error) => Err(CliError::usage(format!("error parsing remote port '{text}': {error}"))),
    })
}

fn port_of(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|port| u16::try_from(port).ok())
}

fn is_udp_only(ports: &[&Value], field: &str, port: u16) -> bool {
    let of = |protocol: &str| {
        ports
            .iter()
            .any(|one| port_of(&one[field]) == Some(port) && one["protocol"].as_str().unwrap_or("TCP") == protocol)
    };
    of("UDP") && !of("TCP")
}

fn udp(asked: &str) -> CliError {
    CliError::usage(format!("UDP protocol is not supported for {asked}"))
}

/// Returns the port for both sides.
fn of_pod(asked: &str, pod: &Value) -> Result<(u16, u16)> {
    let ports = container_ports(pod);
    let port = match number(asked) {
        Some(number) => number?,
        None => named(asked, &ports, pod)?,
    };
    if is_udp_only(&ports, "containerPort", port) { Err(udp(asked)) } else { Ok((port, port)) }
}

fn container_ports(pod: &Value) -> Vec<&Value> {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| pod["spec"][list].as_array());
    containers.flatten().flat_map(|container| container["ports"].as_array().into_iter().flatten()).collect()
}

fn named(name: &str, ports: &[&Value], pod: &Value) -> Result<u16> {
    let found = ports.iter().find(|port| port["name"] == name).and_then(|port| port_of(&port["containerPort"]));
    found.ok_or_else(|| {
        let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
        CliError::usage(format!("Pod '{pod}' does not have a named port '{name}'"))
    })
}

/// Returns the Service's port and the pod's port behind it.
fn of_service(asked: &str, service: &Value, pod: &Value) -> Result<(u16, u16)> {
    let name = service["metadata"]["name"].as_str().unwrap_or_default();
    let ports: Vec<&Value> = service["spec"]["ports"].as_array().into_iter().flatten().collect();
    let found = match number(asked) {
        Some(number) => {
            let number = number?;
            let missing = || CliError::usage(format!("Service {name} does not have a service port {number}"));
            ports.iter().find(|port| port_of(&port["port"]) == Some(number)).ok_or_else(missing)?
        }
        None => {
            let missing = || CliError::usage(format!("Service '{name}' does not have a named port '{asked}'"));
            ports.iter().find(|port| port["name"] == asked).ok_or_else(missing)?
        }
    };
    let port = port_of(&found["port"]).ok_or_else(|| CliError::Answer(format!("a port of the service {name}")))?;
    if is_udp_only(&ports, "port", port) {
        return Err(udp(asked));
    }
    let target = match &found["targetPort"] {
        // The clients of a headless Service connect to its pods directly.
        _ if service["spec"]["clusterIP"] == "None" => port,
        Value::String(target) => named(target, &container_ports(pod), pod)?,
        target => port_of(target).filter(|target| *target > 0).unwrap_or(port),
    };
    Ok((port, target))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_are_numbers_names_or_those_of_a_service() {
        let pod = json!({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"ports": [
            {"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}]}]}});
        let service = json!({"kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "tls", "port": 443, "targetPort": 8443},
            {"port": 9090}, {"name": "dns", "port": 53, "protocol": "UDP"}]}});
        let headless = json!({"kind": "Service", "metadata": {"name": "h"},
            "spec": {"clusterIP": "None", "ports": [{"port": 80, "targetPort": 8080}]}});
        for (text, named, local, remote) in [
            ("80", &pod, 80, 80),
            ("8000:80", &pod, 8000, 80),
            (":80", &pod, 0, 80),
            ("http", &pod, 8080, 8080),
            ("81:http", &pod, 81, 8080),
            ("80", &service, 80, 8080),
            ("web", &service, 80, 8080),
            ("8443:tls", &service, 8443, 8443),
            (":443", &service, 0, 8443),
            ("9090", &service, 9090, 9090),
            ("80", &headless, 80, 80),
        ] {
            assert_eq!(resolve(text, named, &pod).expect(text), Forwarded { local, remote }, "{text}");
        }
        for (text, named, message) in [
            ("1:2:3", &pod, "invalid port format '1:2:3'"),
            ("80:", &pod, "remote port cannot be empty"),
            ("0", &pod, "remote port must be > 0"),
            ("70000", &pod, "error parsing remote port '70000'"),
            ("x:80", &pod, "error parsing local port 'x'"),
            ("ftp", &pod, "Pod 'p' does not have a named port 'ftp'"),
            ("53", &pod, "UDP protocol is not supported for 53"),
            ("dns", &pod, "UDP protocol is not supported for dns"),
            ("81", &service, "Service s does not have a service port 81"),
            ("ftp", &service, "Service 's' does not have a named port 'ftp'"),
            ("dns", &service, "UDP protocol is not supported for dns"),
        ] {
            let error = resolve(text, named, &pod).expect_err(text).to_string();
            assert!(error.starts_with(message), "{text}: {error}");
        }
    }
}

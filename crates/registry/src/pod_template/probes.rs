//! Checks of probes and lifecycle hooks.

use k8s_openapi::api::core::v1 as core;
use quorate_api::{FieldError, FieldPath};

use crate::check;

/// The action of a probe or hook; exactly one field is set.
struct Action<'a> {
    exec: Option<&'a core::ExecAction>,
    http: Option<&'a core::HTTPGetAction>,
    tcp: Option<&'a core::TCPSocketAction>,
    grpc: Option<&'a core::GRPCAction>,
    sleep: Option<&'a core::SleepAction>,
}

pub fn validate(container: &core::Container, path: &FieldPath, errors: &mut Vec<FieldError>) {
    for (field, probe, must_succeed_once) in [
        ("livenessProbe", &container.liveness_probe, true),
        ("readinessProbe", &container.readiness_probe, false),
        ("startupProbe", &container.startup_probe, true),
    ] {
        let Some(probe) = probe else { continue };
        let path = path.child(field);
        validate_probe(probe, &path, errors);
        if must_succeed_once && probe.success_threshold.is_some_and(|threshold| threshold != 1) {
            errors.push(FieldError::invalid(path.child("successThreshold"), probe.success_threshold, "must be 1"));
        }
    }
    if let Some(probe) = container.readiness_probe.as_ref()
        && probe.termination_grace_period_seconds.is_some()
    {
        let path = path.child("readinessProbe").child("terminationGracePeriodSeconds");
        let detail = "must not be set for readinessProbes";
        errors.push(FieldError::invalid(path, probe.termination_grace_period_seconds, detail));
    }
    let Some(lifecycle) = &container.lifecycle else { return };
    for (field, hook) in [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)] {
        let Some(hook) = hook else { continue };
        let action = Action {
            exec: hook.exec.as_ref(),
            http: hook.http_get.as_ref(),
            tcp: hook.tcp_socket.as_ref(),
            grpc: None,
            sleep: hook.sleep.as_ref(),
        };
        validate_action(&action, &path.child("lifecycle").child(field), errors);
    }
}

fn validate_probe(probe: &core::Probe, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let action = Action {
        exec: probe.exec.as_ref(),
        http: probe.http_get.as_ref(),
        tcp: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    validate_action(&action, path, errors);
    for (field, value) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        check::non_negative(value.unwrap_or_default(), path.child(field), errors);
    }
    if let Some(seconds) = probe.termination_grace_period_seconds {
        check::positive(seconds, path.child("terminationGracePeriodSeconds"), errors);
    }
}

fn validate_action(action: &Action<'_>, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let present = [
        ("exec", action.exec.is_some()),
        ("httpGet", action.http.is_some()),
        ("tcpSocket", action.tcp.is_some()),
        ("grpc", action.grpc.is_some()),
        ("sleep", action.sleep.is_some()),
    ];
    let mut present = present.into_iter().filter(|(_, present)| *present).map(|(field, _)| field);
    if present.next().is_none() {
        errors.push(FieldError::required(path.clone(), "must specify a handler type"));
    }
    for field in present {
        errors.push(FieldError::forbidden(path.child(field), "may not specify more than 1 handler type"));
    }
    if let Some(exec) = action.exec
        && exec.command.as_ref().is_none_or(Vec::is_empty)
    {
        errors.push(FieldError::required(path.child("exec").child("command"), ""));
    }
    if let Some(http) = action.http {
        let path = path.child("httpGet");
        if http.path.as_deref().unwrap_or_default().is_empty() {
            errors.push(FieldError::required(path.child("path"), ""));
        }
        check::port(&http.port, &path.child("port"), errors);
        check::one_of(http.scheme.as_deref(), &["HTTP", "HTTPS"], path.child("scheme"), errors);
        for (index, header) in http.http_headers.iter().flatten().enumerate() {
            let path = path.child("httpHeaders").index(index).child("name");
            check::named(&header.name, header_name, &path, errors);
        }
    }
    if let Some(tcp) = action.tcp {
        check::port(&tcp.port, &path.child("tcpSocket").child("port"), errors);
    }
    if let Some(grpc) = action.grpc {
        check::port_number(grpc.port, path.child("grpc").child("port"), errors);
    }
    if let Some(sleep) = action.sleep {
        check::non_negative(sleep.seconds, path.child("sleep").child("seconds"), errors);
    }
}

fn header_name(header: &str) -> Vec<String> {
    let fits = !header.is_empty() && header.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits {
        Vec::new()
    } else {
        vec!["a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')".to_owned()]
    }
}

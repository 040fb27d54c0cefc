//! Volumes, claims, and the classes and drivers that provide them.

use quorate_api::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::{Row, row};
use crate::check;
use crate::pod_template;
use crate::table::{Cell, number, or_none, printed, printed_age, printed_name};
use crate::value::{at, child, equal, items, set_default, set_default_text, text, typed};

const ACCESS_MODES: &[&str] = &["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
const UNSET: &str = "<unset>";
/// Fields of a volume's spec that are not its source.
const NOT_A_SOURCE: &[&str] = &[
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

pub(super) fn rows() -> Vec<Row> {
    let group = "storage.k8s.io";
    let claims = vec![
        printed_name(),
        printed("Status", Cell::Of(phase)),
        printed("Volume", Cell::Field("spec.volumeName")),
        printed("Capacity", Cell::Field("status.capacity.storage")),
        printed("Access Modes", Cell::Of(|object| modes(at(object, "status.accessModes")))),
        printed("StorageClass", Cell::Field("spec.storageClassName")),
        printed("VolumeAttributesClass", Cell::FieldOr("spec.volumeAttributesClassName", UNSET)),
        printed_age(),
        printed("VolumeMode", Cell::FieldOr("spec.volumeMode", UNSET)).wide(),
    ];
    let volumes = vec![
        printed_name(),
        printed("Capacity", Cell::Field("spec.capacity.storage")),
        printed("Access Modes", Cell::Of(|object| modes(at(object, "spec.accessModes")))),
        printed("Reclaim Policy", Cell::Field("spec.persistentVolumeReclaimPolicy")),
        printed("Status", Cell::Of(phase)),
        printed("Claim", Cell::Of(claim_of)),
        printed("StorageClass", Cell::Field("spec.storageClassName")),
        printed("VolumeAttributesClass", Cell::FieldOr("spec.volumeAttributesClassName", UNSET)),
        printed("Reason", Cell::Field("status.reason")),
        printed_age(),
        printed("VolumeMode", Cell::FieldOr("spec.volumeMode", UNSET)).wide(),
    ];
    vec![
        row("", "PersistentVolumeClaim", "persistentvolumeclaims")
            .short(&["pvc"])
            .status()
            .starts_as(|| json!({"phase": "Pending"}))
            .returns_deleted()
            .default(default_claim)
            .validate(claim)
            .validate_update(claim_update)
            .columns(claims),
        row("", "PersistentVolume", "persistentvolumes")
            .short(&["pv"])
            .cluster()
            .status()
            .starts_as(|| json!({"phase": "Pending"}))
            .returns_deleted()
            .default(default_volume)
            .validate(volume)
            .validate_update(volume_update)
            .immutable(&["spec.volumeMode"])
            .columns(volumes),
        row(group, "CSIDriver", "csidrivers")
            .cluster()
            .returns_deleted()
            .default(default_driver)
            .immutable(&["spec.attachRequired", "spec.volumeLifecycleModes"])
            .columns(vec![
                printed_name(),
                printed("AttachRequired", Cell::Flag("spec.attachRequired")).of_type("boolean"),
                printed("PodInfoOnMount", Cell::Flag("spec.podInfoOnMount")).of_type("boolean"),
                printed("StorageCapacity", Cell::Flag("spec.storageCapacity")).of_type("boolean"),
                printed("TokenRequests", Cell::Of(audiences)),
                printed("RequiresRepublish", Cell::Flag("spec.requiresRepublish")).of_type("boolean"),
                printed("Modes", Cell::Of(|object| joined(at(object, "spec.volumeLifecycleModes")))),
                printed_age(),
            ]),
        row(group, "CSINode", "csinodes").cluster().returns_deleted().columns(vec![
            printed_name(),
            number("Drivers", Cell::Count("spec.drivers")),
            printed_age(),
        ]),
        row(group, "CSIStorageCapacity", "csistoragecapacities")
            .immutable(&["nodeTopology", "storageClassName"])
            .validate(|object, errors| {
                if text(&object["storageClassName"]).is_empty() {
                    errors.push(FieldError::required(FieldPath::new("storageClassName"), ""));
                }
            })
            .columns(vec![
                printed_name(),
                printed("StorageClassName", Cell::Field("storageClassName")),
                printed("Capacity", Cell::FieldOr("capacity", UNSET)),
                printed_age(),
            ]),
        row(group, "StorageClass", "storageclasses")
            .short(&["sc"])
            .cluster()
            .returns_deleted()
            .default(|object| {
                set_default_text(object, "reclaimPolicy", "Delete");
                set_default_text(object, "volumeBindingMode", "Immediate");
            })
            .validate(|object, errors| {
                let policy = object["reclaimPolicy"].as_str();
                check::one_of(policy, &["Delete", "Retain"], FieldPath::new("reclaimPolicy"), errors);
                let modes = &["Immediate", "WaitForFirstConsumer"];
                let mode = object["volumeBindingMode"].as_str();
                check::one_of(mode, modes, FieldPath::new("volumeBindingMode"), errors);
            })
            .columns(vec![
                printed_name(),
                printed("Provisioner", Cell::Field("provisioner")),
                printed("ReclaimPolicy", Cell::FieldOr("reclaimPolicy", "Delete")),
                printed("VolumeBindingMode", Cell::FieldOr("volumeBindingMode", "Immediate")),
                printed("AllowVolumeExpansion", Cell::Flag("allowVolumeExpansion")),
                printed_age(),
            ]),
        row(group, "VolumeAttachment", "volumeattachments").cluster().status().returns_deleted().columns(vec![
            printed_name(),
            printed("Attacher", Cell::Field("spec.attacher")),
            printed("PV", Cell::Field("spec.source.persistentVolumeName")),
            printed("Node", Cell::Field("spec.nodeName")),
            printed("Attached", Cell::Flag("status.attached")).of_type("boolean"),
            printed_age(),
        ]),
        row(group, "VolumeAttributesClass", "volumeattributesclasses")
            .short(&["vac"])
            .cluster()
            .returns_deleted()
            .immutable(&["driverName", "parameters"])
            .validate(|object, errors| {
                if text(&object["driverName"]).is_empty() {
                    errors.push(FieldError::required(FieldPath::new("driverName"), ""));
                }
                if object["parameters"].as_object().is_none_or(serde_json::Map::is_empty) {
                    let detail = "must contain at least one key/value pair";
                    errors.push(FieldError::required(FieldPath::new("parameters"), detail));
                }
            })
            .columns(vec![printed_name(), printed("DriverName", Cell::Field("driverName")), printed_age()]),
    ]
}

fn phase(object: &Value) -> Value {
    let phase = text(at(object, "status.phase"));
    if at(object, "metadata.deletionTimestamp").is_string() { "Terminating" } else { phase }.into()
}

/// Abbreviates access modes, such as `RWO,ROX`.
fn modes(modes: &Value) -> Value {
    let shorts =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let given = items(modes);
    let shown = shorts.iter().filter(|(mode, _)| given.iter().any(|one| one == mode)).map(|(_, short)| *short);
    shown.collect::<Vec<_>>().join(",").into()
}

fn claim_of(object: &Value) -> Value {
    let claim = at(object, "spec.claimRef");
    if claim.is_null() { "".into() } else { format!("{}/{}", text(&claim["namespace"]), text(&claim["name"])).into() }
}

fn joined(list: &Value) -> Value {
    or_none(&items(list).iter().map(text).collect::<Vec<_>>().join(","))
}

fn audiences(object: &Value) -> Value {
    let audiences = items(at(object, "spec.tokenRequests")).iter().map(|request| text(&request["audience"]));
    let list = audiences.collect::<Vec<_>>().join(",");
    if list.is_empty() { UNSET.into() } else { list.into() }
}

/// Sets the defaults of a claim, also of one that a StatefulSet's template makes.
pub fn default_claim(claim: &mut Value) {
    set_default_text(child(claim, "status"), "phase", "Pending");
    set_default_text(child(claim, "spec"), "volumeMode", "Filesystem");
}

fn claim(object: &Value, errors: &mut Vec<FieldError>) {
    match typed(&object["spec"]) {
        Some(spec) => pod_template::validate_claim(&spec, &FieldPath::new("spec"), errors),
        None => errors.push(FieldError::required(FieldPath::new("spec"), "")),
    }
}

fn claim_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let is_bound = at(old, "status.phase") == "Bound";
    let fixed = |object: &Value| {
        let mut spec = object["spec"].clone();
        if is_bound {
            spec["resources"]["requests"]["storage"] = Value::Null;
            spec["volumeAttributesClassName"] = Value::Null;
        }
        // A claim without a volume can still be bound, and one without a class can still get the default class.
        for field in ["volumeName", "storageClassName"] {
            if old["spec"][field].is_null() {
                spec[field] = Value::Null;
            }
        }
        spec
    };
    if !equal(&fixed(new), &fixed(old)) {
        let detail =
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        errors.push(FieldError::forbidden(path.clone(), detail));
        return;
    }
    let request = |object: &Value| {
        let storage = text(at(object, "spec.resources.requests.storage")).to_owned();
        quorate_api::Quantity::parse(&storage).ok()
    };
    if request(new) < request(old) {
        let at = path.child("resources").child("requests").child("storage");
        errors.push(FieldError::forbidden(at, "field can not be less than previous value"));
    }
}

fn default_volume(object: &mut Value) {
    set_default_text(child(object, "status"), "phase", "Pending");
    let spec = child(object, "spec");
    set_default_text(spec, "persistentVolumeReclaimPolicy", "Retain");
    set_default_text(spec, "volumeMode", "Filesystem");
    if spec["hostPath"].is_object() {
        set_default(&mut spec["hostPath"], "type", "");
    }
}

/// Returns the names of the fields that say where a volume is.
fn sources(spec: &Value) -> Vec<&str> {
    let fields = spec.as_object().into_iter().flatten();
    fields
        .filter(|(name, value)| value.is_object() && !NOT_A_SOURCE.contains(&name.as_str()))
        .map(|(n, _)| &**n)
        .collect()
}

fn volume(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    let modes = items(&spec["accessModes"]);
    if modes.is_empty() {
        errors.push(FieldError::required(path.child("accessModes"), ""));
    }
    for mode in modes.iter().map(text).filter(|mode| !ACCESS_MODES.contains(mode)) {
        errors.push(FieldError::not_supported(path.child("accessModes"), mode, ACCESS_MODES));
    }
    if at(spec, "capacity.storage").is_null() {
        errors.push(FieldError::required(path.child("capacity"), "storage is required"));
    }
    let policy = spec["persistentVolumeReclaimPolicy"].as_str();
    let at = path.child("persistentVolumeReclaimPolicy");
    check::one_of(policy, &["Delete", "Recycle", "Retain"], at.clone(), errors);
    let mode = spec["volumeMode"].as_str();
    check::one_of_if_set(mode, &["Block", "Filesystem"], path.child("volumeMode"), errors);
    match sources(spec).as_slice() {
        [] => errors.push(FieldError::required(path, "must specify a volume type")),
        ["hostPath"] if policy == Some("Recycle") && spec["hostPath"]["path"] == "/" => {
            errors.push(FieldError::forbidden(at, "may not be 'recycle' for a hostPath mount of '/'"));
        }
        [_] => {}
        [_, others @ ..] => {
            let detail = "may not specify more than 1 volume type";
            errors.extend(others.iter().map(|source| FieldError::forbidden(path.child(source), detail)));
        }
    }
}

fn volume_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let source = |object: &Value| -> Value {
        sources(&object["spec"]).into_iter().map(|name| json!([name, object["spec"][name]])).collect()
    };
    if !equal(&source(new), &source(old)) {
        let detail = "spec.persistentvolumesource is immutable after creation";
        errors.push(FieldError::forbidden(FieldPath::new("spec"), detail));
    }
}

fn default_driver(object: &mut Value) {
    let spec = child(object, "spec");
    set_default(spec, "attachRequired", true);
    set_default(spec, "podInfoOnMount", false);
    set_default(spec, "storageCapacity", false);
    set_default(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
    set_default(spec, "requiresRepublish", false);
    set_default(spec, "seLinuxMount", false);
    if items(&spec["volumeLifecycleModes"]).is_empty() {
        spec["volumeLifecycleModes"] = json!(["Persistent"]);
    }
}

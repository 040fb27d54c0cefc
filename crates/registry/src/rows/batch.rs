//! Job and CronJob.

use jiff::Timestamp;
use quorate_api::{FieldError, FieldPath, name};
use serde_json::Value;

use super::workloads::validate_template;
use super::{Row, row};
use crate::check;
use crate::kinds::workload;
use crate::pod_template;
use crate::table::{Cell, NONE, number, printed, printed_age, printed_name, printed_workload, since};
use crate::value::{at, child, equal, int, items, items_mut, set_default, set_default_text, text};

/// Maximum length of a CronJob's name, so that a suffix for its Jobs fits.
const MAX_CRON_JOB_NAME: usize = 52;
const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const CONTROLLER_UID: &str = "batch.kubernetes.io/controller-uid";

pub(super) fn rows() -> Vec<Row> {
    let [containers, images, selector] = printed_workload();
    let jobs = vec![
        printed_name(),
        printed("Status", Cell::Of(job_status)),
        printed("Completions", Cell::Of(completions)),
        printed("Duration", Cell::At(duration)),
        printed_age(),
        containers,
        images,
        selector,
    ];
    let of_template = |index: usize| -> fn(&Value) -> Value {
        match index {
            0 => |object| crate::table::workload_cells(at(object, "spec.jobTemplate.spec"))[0].clone(),
            1 => |object| crate::table::workload_cells(at(object, "spec.jobTemplate.spec"))[1].clone(),
            _ => |object| crate::table::workload_cells(at(object, "spec.jobTemplate.spec"))[2].clone(),
        }
    };
    let cron_jobs = vec![
        printed_name(),
        printed("Schedule", Cell::Field("spec.schedule")),
        printed("Timezone", Cell::FieldOr("spec.timeZone", NONE)),
        printed(
            "Suspend",
            Cell::Of(|object| if *at(object, "spec.suspend") == true { "True" } else { "False" }.into()),
        )
        .of_type("boolean"),
        number("Active", Cell::Count("status.active")),
        printed("Last Schedule", Cell::At(last_schedule)),
        printed_age(),
        printed("Containers", Cell::Of(of_template(0))).wide(),
        printed("Images", Cell::Of(of_template(1))).wide(),
        printed("Selector", Cell::Of(of_template(2))).wide(),
    ];
    vec![
        row("batch", "CronJob", "cronjobs")
            .short(&["cj"])
            .category(&["all"])
            .status()
            .generations()
            .named_by(cron_job_name)
            .default(default_cron_job)
            .validate(cron_job)
            .columns(cron_jobs),
        row("batch", "Job", "jobs")
            .category(&["all"])
            .status()
            .generations()
            .default(default_job)
            .named(select_own_pods)
            .validate(job)
            .validate_update(job_update)
            .immutable(&["spec.selector", "spec.completionMode", "spec.podFailurePolicy", "spec.backoffLimitPerIndex"])
            .selectable(&[("status.successful", "status.succeeded")])
            .columns(jobs),
    ]
}

fn condition<'a>(object: &'a Value, wanted: &str) -> Option<&'a Value> {
    let mut conditions = items(at(object, "status.conditions")).iter();
    conditions.find(|condition| condition["type"] == wanted && condition["status"] == "True")
}

fn job_status(object: &Value) -> Value {
    let known = ["Complete", "Failed", "Suspended", "FailureTarget", "SuccessCriteriaMet"];
    let shown = match known.into_iter().find(|wanted| condition(object, wanted).is_some()) {
        Some("FailureTarget" | "SuccessCriteriaMet") | None if at(object, "metadata.deletionTimestamp").is_string() => {
            "Terminating"
        }
        Some(condition) => condition,
        None => "Running",
    };
    shown.into()
}

fn completions(object: &Value) -> Value {
    let done = int(at(object, "status.succeeded"));
    let parallelism = int(at(object, "spec.parallelism"));
    match at(object, "spec.completions").as_i64() {
        Some(wanted) => format!("{done}/{wanted}"),
        None if parallelism > 1 => format!("{done}/1 of {parallelism}"),
        None => format!("{done}/1"),
    }
    .into()
}

fn duration(object: &Value, now: Timestamp) -> Value {
    let start = at(object, "status.startTime");
    let end = text(at(object, "status.completionTime")).parse().unwrap_or(now);
    if start.is_null() { "".into() } else { since(start, end).into() }
}

fn last_schedule(object: &Value, now: Timestamp) -> Value {
    let last = at(object, "status.lastScheduleTime");
    if last.is_null() { NONE.into() } else { since(last, now).into() }
}

fn default_job(object: &mut Value) {
    let spec = child(object, "spec");
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    set_default(spec, "parallelism", 1);
    let limit = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i32::MAX };
    set_default(spec, "backoffLimit", limit);
    set_default(spec, "completionMode", "NonIndexed");
    set_default(spec, "suspend", false);
    set_default(spec, "manualSelector", false);
    let has_failure_policy = spec["podFailurePolicy"].is_object();
    set_default(spec, "podReplacementPolicy", if has_failure_policy { "Failed" } else { "TerminatingOrFailed" });
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            items_mut(rule, "onPodConditions").for_each(|pattern| set_default_text(pattern, "status", "True"));
        }
    }
    pod_template::default_template(child(spec, "template"));
    let labels = spec["template"]["metadata"]["labels"].clone();
    if labels.is_object() {
        set_default(child(object, "metadata"), "labels", labels);
    }
}

/// Gives a Job's pods labels that no other Job's pods have, and selects them, unless the user selects pods.
fn select_own_pods(object: &mut Value) {
    if *at(object, "spec.manualSelector") == true {
        return;
    }
    let (uid, job) = (at(object, "metadata.uid").clone(), at(object, "metadata.name").clone());
    let spec = child(object, "spec");
    child(child(spec, "selector"), "matchLabels")[CONTROLLER_UID] = uid.clone();
    let labels = child(child(child(spec, "template"), "metadata"), "labels");
    for (key, value) in
        [(CONTROLLER_UID, &uid), ("controller-uid", &uid), ("batch.kubernetes.io/job-name", &job), ("job-name", &job)]
    {
        labels[key] = value.clone();
    }
}

fn job(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    job_spec(spec, &path, errors);
    let labels = at(spec, "template.metadata.labels");
    let selected = at(spec, "selector.matchLabels").as_object();
    if selected.is_none_or(serde_json::Map::is_empty) && items(at(spec, "selector.matchExpressions")).is_empty() {
        errors.push(FieldError::required(path.child("selector"), ""));
    }
    if selected.into_iter().flatten().any(|(key, value)| labels.get(key) != Some(value)) {
        let at = path.child("template").child("metadata").child("labels");
        errors.push(FieldError::invalid(at, labels, "`selector` does not match template `labels`"));
    }
}

fn job_spec(spec: &Value, path: &FieldPath, errors: &mut Vec<FieldError>) {
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
        "ttlSecondsAfterFinished",
    ];
    for field in counts {
        check::non_negative(int(&spec[field]), path.child(field), errors);
    }
    let mode = spec["completionMode"].as_str();
    check::one_of_if_set(mode, &["Indexed", "NonIndexed"], path.child("completionMode"), errors);
    if mode == Some("Indexed") && spec["completions"].is_null() {
        let detail = "when completion mode is Indexed";
        errors.push(FieldError::required(path.child("completions"), detail));
    }
    if mode != Some("Indexed") && !spec["backoffLimitPerIndex"].is_null() {
        let detail = "requires indexed completion mode";
        errors.push(FieldError::invalid(path.child("backoffLimitPerIndex"), &spec["backoffLimitPerIndex"], detail));
    }
    let owner = workload::finite("Job");
    validate_template(&spec["template"], &owner, &path.child("template"), errors);
}

fn job_update(new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let path = FieldPath::new("spec");
    let (new_spec, old_spec) = (&new["spec"], &old["spec"]);
    // Queueing controllers place a suspended Job before it starts.
    let is_waiting = old_spec["suspend"] == true && at(old, "status.startTime").is_null();
    if !is_waiting && !equal(&new_spec["template"], &old_spec["template"]) {
        errors.push(FieldError::invalid(path.child("template"), &new_spec["template"], check::IMMUTABLE));
    }
    let (count, before) = (&new_spec["completions"], &old_spec["completions"]);
    // An indexed Job can grow and shrink as long as its parallelism does the same.
    let is_elastic = new_spec["completionMode"] == "Indexed" && count == &new_spec["parallelism"];
    if count != before && !is_elastic {
        errors.push(FieldError::invalid(path.child("completions"), count, check::IMMUTABLE));
    }
}

fn cron_job_name(name: &str) -> Vec<String> {
    let mut problems = name::dns1123_subdomain(name);
    if name.len() > MAX_CRON_JOB_NAME {
        problems.push(format!("must be no more than {MAX_CRON_JOB_NAME} characters"));
    }
    problems
}

fn default_cron_job(object: &mut Value) {
    let spec = child(object, "spec");
    set_default_text(spec, "concurrencyPolicy", "Allow");
    set_default(spec, "suspend", false);
    set_default(spec, "successfulJobsHistoryLimit", 3);
    set_default(spec, "failedJobsHistoryLimit", 1);
    pod_template::default_template(child(child(child(spec, "jobTemplate"), "spec"), "template"));
}

fn cron_job(object: &Value, errors: &mut Vec<FieldError>) {
    let (path, spec) = (FieldPath::new("spec"), &object["spec"]);
    let schedule = text(&spec["schedule"]);
    if !schedule.is_empty()
        && let Err(problem) = check_schedule(schedule)
    {
        errors.push(FieldError::invalid(path.child("schedule"), schedule, problem));
    }
    if spec["timeZone"] == "" {
        let detail = "timeZone must be nil or non-empty string";
        errors.push(FieldError::invalid(path.child("timeZone"), "", detail));
    }
    let policy = spec["concurrencyPolicy"].as_str();
    check::one_of(policy, &["Allow", "Forbid", "Replace"], path.child("concurrencyPolicy"), errors);
    for field in ["startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        check::non_negative(int(&spec[field]), path.child(field), errors);
    }
    let (path, spec) = (path.child("jobTemplate").child("spec"), at(spec, "jobTemplate.spec"));
    job_spec(spec, &path, errors);
    if spec["manualSelector"] == true {
        errors.push(FieldError::not_supported(path.child("manualSelector"), true, &["nil", "false"]));
    }
}

/// Checks a schedule: five fields, or a word such as `@daily`.
fn check_schedule(schedule: &str) -> Result<(), String> {
    if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
        return Err("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
    }
    if let Some(word) = schedule.strip_prefix('@') {
        let is_known = matches!(word, "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly")
            || word.strip_prefix("every ").is_some_and(|interval| interval.starts_with(|c: char| c.is_ascii_digit()));
        return if is_known { Ok(()) } else { Err(format!("unrecognized descriptor: {schedule}")) };
    }
    let limits: [(u32, u32, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, MONTHS), (0, 6, DAYS)];
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != limits.len() {
        return Err(format!("expected exactly 5 fields, found {}: {fields:?}", fields.len()));
    }
    for (field, (min, max, names)) in fields.iter().zip(limits) {
        for part in field.split(',') {
            check_range(part, min, max, names).map_err(|problem| format!("{problem}: {part}"))?;
        }
    }
    Ok(())
}

fn check_range(part: &str, min: u32, max: u32, names: &[&str]) -> Result<(), &'static str> {
    let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
    if step.is_some_and(|step| !step.parse::<u32>().is_ok_and(|step| step > 0)) {
        return Err("step of range should be a positive number");
    }
    if matches!(range, "*" | "?") {
        return Ok(());
    }
    let value = |text: &str| {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let named = named.and_then(|index| u32::try_from(index).ok()).map(|index| index + min);
        named.or_else(|| text.parse::<u32>().ok())
    };
    let (from, to) = range.split_once('-').unwrap_or((range, range));
    let (Some(from), Some(to)) = (value(from), value(to)) else { return Err("failed to parse int from") };
    if from < min {
        return Err("beginning of range below minimum");
    }
    if to > max {
        return Err("end of range above maximum");
    }
    if from > to { Err("beginning of range beyond end of range") } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn schedules_have_five_fields_or_a_known_word() {
        for schedule in ["*/5 * * * *", "0 0 1,15 * mon-fri", "@daily", "@every 1h", "59 23 31 DEC sun"] {
            assert_eq!(check_schedule(schedule), Ok(()), "{schedule}");
        }
        for schedule in
            ["", "* * * *", "60 * * * *", "* * 0 * *", "*/0 * * * *", "5-1 * * * *", "@often", "TZ=UTC * * * * *"]
        {
            assert!(check_schedule(schedule).is_err(), "{schedule}");
        }
    }

    #[test]
    fn the_pods_of_a_job_are_its_own() {
        let mut job = json!({"metadata": {"name": "a", "uid": "u"}, "spec": {}});
        select_own_pods(&mut job);
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {CONTROLLER_UID: "u"}}));
        let labels = &job["spec"]["template"]["metadata"]["labels"];
        assert_eq!((&labels["controller-uid"], &labels["job-name"]), (&json!("u"), &json!("a")));
        // A name that is drawn again replaces the first one.
        job["metadata"]["name"] = json!("b");
        select_own_pods(&mut job);
        assert_eq!(job["spec"]["template"]["metadata"]["labels"]["job-name"], "b");
    }
}

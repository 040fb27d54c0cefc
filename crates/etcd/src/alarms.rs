//! Alarms: problems that a member cannot repair by itself. An alarm is raised by its cause and ends with it, so nobody
//! has to clear one by hand.

use quorate_store::{Alarm, QuorumStatus};
use tonic::Status;

use crate::pb::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType, alarm_request::AlarmAction};

/// Returns the alarms in the status of all members.
pub(crate) fn raised(quorum: &QuorumStatus) -> Vec<AlarmMember> {
    let of_member = |status: &quorate_store::MemberStatus| {
        let id = status.member.id;
        status.alarms.clone().into_iter().map(move |alarm| AlarmMember { member_id: id, alarm: kind(alarm).into() })
    };
    quorum.members.iter().flat_map(of_member).collect()
}

fn kind(alarm: Alarm) -> AlarmType {
    match alarm {
        Alarm::NoSpace => AlarmType::Nospace,
        Alarm::Corrupt => AlarmType::Corrupt,
    }
}

/// Formats an alarm as etcd does in a status.
pub(crate) fn text(alarm: &AlarmMember) -> String {
    format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name())
}

/// Answers an alarm request with the alarms that it selects.
///
/// # Errors
/// `InvalidArgument` for raising an alarm by hand, and `FailedPrecondition` for clearing one whose cause persists.
pub(crate) fn answer(request: &AlarmRequest, raised: Vec<AlarmMember>) -> Result<Vec<AlarmMember>, Status> {
    let is_selected = |alarm: &AlarmMember| {
        (request.member_id == 0 || request.member_id == alarm.member_id)
            && (request.alarm() == AlarmType::None || request.alarm == alarm.alarm)
    };
    let selected: Vec<_> = raised.into_iter().filter(is_selected).collect();
    match request.action() {
        AlarmAction::Get => Ok(selected),
        AlarmAction::Activate => {
            Err(Status::invalid_argument("etcdserver: alarms are raised by their causes, not by hand"))
        }
        AlarmAction::Deactivate if selected.is_empty() => Ok(selected),
        AlarmAction::Deactivate => {
            let still = selected.iter().map(|alarm| text(alarm).trim_end().to_owned()).collect::<Vec<_>>().join(", ");
            Err(Status::failed_precondition(format!("etcdserver: an alarm ends when its cause does: {still}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn alarms_are_listed_and_end_by_themselves() {
        let alarm = |member_id, alarm: AlarmType| AlarmMember { member_id, alarm: alarm.into() };
        let raised = vec![alarm(1, AlarmType::Nospace), alarm(2, AlarmType::Corrupt)];
        let ask = |action: AlarmAction, member_id, kind: AlarmType| {
            answer(&AlarmRequest { action: action.into(), member_id, alarm: kind.into() }, raised.clone())
        };
        assert_eq!(ask(AlarmAction::Get, 0, AlarmType::None).expect("a list"), raised);
        assert_eq!(ask(AlarmAction::Get, 0, AlarmType::Corrupt).expect("a list"), raised[1..]);
        assert_eq!(ask(AlarmAction::Get, 1, AlarmType::None).expect("a list"), raised[..1]);
        assert_eq!(ask(AlarmAction::Deactivate, 3, AlarmType::None).expect("nothing to clear"), []);
        let refused = ask(AlarmAction::Deactivate, 1, AlarmType::Nospace).expect_err("no space yet");
        assert_eq!(refused.code(), Code::FailedPrecondition);
        assert!(refused.message().ends_with(": memberID:1 alarm:NOSPACE"), "{refused}");
        let refused = ask(AlarmAction::Activate, 1, AlarmType::Nospace).expect_err("not by hand");
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

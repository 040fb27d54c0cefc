//! The state that the requests of one connection share: the user, and the memory budgets.

use std::net::IpAddr;

use quorate_store::{BudgetExhausted, ByteBudget, WatchBudget};
use tokio_util::sync::CancellationToken;

use crate::error;
use crate::response::{Body, Response};
use crate::user::UserInfo;

/// Number of watches of a connection that may hold a page of old events at a time. A page is up to half a MiB, or one
/// revision. A watch whose client stalls keeps its turn.
const MAX_WATCHES_CATCHING_UP: usize = 64;
/// Memory that all other watches of a connection share, in bytes.
const WATCH_BUDGET_BYTES: usize = 8 << 20;
/// Memory that the unread responses of a connection share, and the size up to which a response does not count.
const RESPONSE_BUDGET_BYTES: usize = 64 << 20;
const FREE_RESPONSE_BYTES: usize = 64 << 10;

/// The state that the requests of one connection share.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The authenticated user; `None` for the anonymous user.
    pub user: Option<UserInfo>,
    /// The client's address, if it connected over the network.
    pub address: Option<IpAddr>,
    pub watches: WatchBudget,
    pub answers: ResponseBudget,
    /// Ends streams (watches, logs) at shutdown.
    pub shutdown: CancellationToken,
}

impl Connection {
    #[must_use]
    pub fn new(user: Option<UserInfo>, shutdown: CancellationToken) -> Self {
        let watches = WatchBudget::new(MAX_WATCHES_CATCHING_UP, WATCH_BUDGET_BYTES);
        Connection { user, address: None, watches, answers: ResponseBudget::default(), shutdown }
    }

    /// Sets the client's address.
    #[must_use]
    pub fn from(self, address: IpAddr) -> Self {
        Connection { address: Some(address), ..self }
    }
}

/// Budget for the responses of a connection that the client has not read yet.
#[derive(Clone, Debug)]
pub struct ResponseBudget(ByteBudget);

impl Default for ResponseBudget {
    fn default() -> Self {
        let budget = ByteBudget::new(RESPONSE_BUDGET_BYTES, FREE_RESPONSE_BYTES);
        ResponseBudget(budget.exceeded_by_one(RESPONSE_BUDGET_BYTES / 4))
    }
}

impl ResponseBudget {
    /// Reserves budget for a response until its bytes are dropped. A read without budget is refused. A finished write
    /// must be answered, so its response bypasses the budget.
    pub(crate) fn hold(&self, response: Response, is_read: bool) -> Response {
        let Body::Full(data) = &response.body else { return response };
        match self.0.hold(data.len()) {
            Ok(None) => response,
            Ok(Some(held)) => Response { body: Body::Full(held.attach(data.clone())), ..response },
            Err(BudgetExhausted) if is_read => Response::failure(&error::too_many_requests()),
            Err(BudgetExhausted) => response,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_share_a_budget_until_they_are_read_and_writes_bypass_it() {
        let budget = ResponseBudget::default();
        let hold = |size: usize, is_read| {
            let response = Response::new(200, "application/json", Body::Full(vec![b' '; size].into()));
            let response = budget.hold(response, is_read);
            assert!(response.code == 200 || response.code == 429);
            (response.code == 200).then_some(response)
        };
        let large = hold(RESPONSE_BUDGET_BYTES, true).expect("the budget suffices");
        assert!(hold(FREE_RESPONSE_BYTES + 1, true).is_none(), "the budget is used up");
        assert!(hold(FREE_RESPONSE_BYTES, true).is_some() && hold(FREE_RESPONSE_BYTES + 1, false).is_some());
        let _larger = hold(RESPONSE_BUDGET_BYTES + 1, true).expect("one large response may exceed the budget");
        assert!(hold(RESPONSE_BUDGET_BYTES + 1, true).is_none(), "only one may exceed it");
        let Body::Full(data) = large.body else { panic!("it is not a stream") };
        let rest = data.slice(RESPONSE_BUDGET_BYTES - 1..);
        drop(data);
        assert!(hold(FREE_RESPONSE_BYTES + 1, true).is_none(), "a part of the response is not read yet");
        drop(rest);
        assert!(hold(FREE_RESPONSE_BYTES + 1, true).is_some());
    }
}

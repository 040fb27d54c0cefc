//! The state that the requests of one connection share: the user, and the memory budgets.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use quorate_store::WatchBudget;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
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

/// Budget for the responses of a connection that the client has not read yet. HTTP/2 takes a response whole, long
/// before the client reads it.
#[derive(Clone, Debug)]
pub struct ResponseBudget {
    shared: Arc<Semaphore>,
    /// Lets one large response at a time exceed the budget, so that a response may have any size.
    alone: Arc<Semaphore>,
}

impl Default for ResponseBudget {
    fn default() -> Self {
        ResponseBudget { shared: Arc::new(Semaphore::new(RESPONSE_BUDGET_BYTES)), alone: Arc::new(Semaphore::new(1)) }
    }
}

impl ResponseBudget {
    /// Reserves budget for a response until its bytes are dropped. A read without budget is refused. A finished write
    /// must be answered, so its response bypasses the budget.
    pub(crate) fn hold(&self, response: Response, is_read: bool) -> Response {
        let Body::Full(data) = &response.body else { return response };
        if data.len() <= FREE_RESPONSE_BYTES {
            return response;
        }
        let shared =
            u32::try_from(data.len()).ok().and_then(|size| self.shared.clone().try_acquire_many_owned(size).ok());
        let is_large = data.len() >= RESPONSE_BUDGET_BYTES / 4;
        let permit = shared.or_else(|| is_large.then(|| self.alone.clone().try_acquire_owned().ok()).flatten());
        match permit {
            Some(permit) => {
                let data = Bytes::from_owner(BudgetedBytes { data: data.clone(), _permit: permit });
                Response { body: Body::Full(data), ..response }
            }
            None if is_read => Response::failure(&error::too_many_requests()),
            None => response,
        }
    }
}

/// The bytes of a response, with the budget that they hold.
struct BudgetedBytes {
    data: Bytes,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for BudgetedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_share_a_budget_until_they_are_read() {
        let budget = ResponseBudget::default();
        let free = || (budget.shared.available_permits(), budget.alone.available_permits());
        let hold = |size: usize, is_read| {
            let response = Response::new(200, "application/json", Body::Full(vec![b' '; size].into()));
            let response = budget.hold(response, is_read);
            assert!(response.code == 200 || response.code == 429);
            (response.code == 200).then_some(response)
        };
        let _small = hold(FREE_RESPONSE_BYTES, true).expect("small responses do not count");
        assert_eq!(free(), (RESPONSE_BUDGET_BYTES, 1));
        let large = hold(RESPONSE_BUDGET_BYTES, true).expect("the budget suffices");
        assert_eq!(free(), (0, 1));
        assert!(hold(FREE_RESPONSE_BYTES + 1, true).is_none(), "the budget is used up");
        assert!(hold(FREE_RESPONSE_BYTES, true).is_some() && hold(FREE_RESPONSE_BYTES + 1, false).is_some());
        let larger = hold(RESPONSE_BUDGET_BYTES + 1, true).expect("one large response may exceed the budget");
        assert!(hold(RESPONSE_BUDGET_BYTES + 1, true).is_none(), "only one may exceed it");
        let Body::Full(data) = large.body else { panic!("it is not a stream") };
        let rest = data.slice(RESPONSE_BUDGET_BYTES - 1..);
        drop(data);
        assert_eq!((free(), &rest[..]), ((0, 0), &b" "[..]));
        drop(rest);
        drop(larger);
        assert_eq!(free(), (RESPONSE_BUDGET_BYTES, 1));
    }
}

//! What the requests of a connection share: its user, and how much it may hold.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use quorate_store::WatchBudget;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::error;
use crate::response::{Body, Response};
use crate::user::UserInfo;

/// Watches of a connection that may catch up at a time: each holds up to half a MiB, or one revision. Those that are not
/// read keep their turn.
const CATCHING_UP: usize = 64;
/// What all others of a connection may hold.
const WATCH_ROOM_BYTES: usize = 8 << 20;
/// What the answers of a connection may hold until they are read, and up to what size they do not count.
const ANSWERS_BYTES: usize = 64 << 20;
const FREE_ANSWER_BYTES: usize = 64 << 10;

/// What the requests of a connection share.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `None`: anonymous.
    pub user: Option<UserInfo>,
    /// Where the client is, if it came over the network.
    pub address: Option<IpAddr>,
    pub watches: WatchBudget,
    pub answers: AnswersRoom,
    /// Ends streams (watches, logs) when the server goes down.
    pub shutdown: CancellationToken,
}

impl Connection {
    #[must_use]
    pub fn new(user: Option<UserInfo>, shutdown: CancellationToken) -> Self {
        let watches = WatchBudget::new(CATCHING_UP, WATCH_ROOM_BYTES);
        Connection { user, address: None, watches, answers: AnswersRoom::default(), shutdown }
    }

    /// A connection from this address.
    #[must_use]
    pub fn from(self, address: IpAddr) -> Self {
        Connection { address: Some(address), ..self }
    }
}

/// How much of a connection's answers may wait for its client: HTTP/2 takes them whole, long before the client does.
#[derive(Clone, Debug)]
pub struct AnswersRoom {
    shared: Arc<Semaphore>,
    /// For a large one that finds no room, so that an answer may be as long as it likes.
    alone: Arc<Semaphore>,
}

impl Default for AnswersRoom {
    fn default() -> Self {
        AnswersRoom { shared: Arc::new(Semaphore::new(ANSWERS_BYTES)), alone: Arc::new(Semaphore::new(1)) }
    }
}

impl AnswersRoom {
    /// Takes room for an answer, which goes along with its bytes. What was done cannot be refused any more, and goes beside
    /// the others.
    pub(crate) fn hold(&self, response: Response, is_read: bool) -> Response {
        let Body::Full(data) = &response.body else { return response };
        if data.len() <= FREE_ANSWER_BYTES {
            return response;
        }
        let shared =
            u32::try_from(data.len()).ok().and_then(|size| self.shared.clone().try_acquire_many_owned(size).ok());
        let is_large = data.len() >= ANSWERS_BYTES / 4;
        let room = shared.or_else(|| is_large.then(|| self.alone.clone().try_acquire_owned().ok()).flatten());
        match room {
            Some(room) => {
                let data = Bytes::from_owner(HeldBytes { data: data.clone(), _room: room });
                Response { body: Body::Full(data), ..response }
            }
            None if is_read => Response::failure(&error::too_many_requests()),
            None => response,
        }
    }
}

/// Bytes of an answer with the room that they take.
struct HeldBytes {
    data: Bytes,
    _room: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for HeldBytes {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_share_a_bounded_room_until_they_are_read() {
        let room = AnswersRoom::default();
        let free = || (room.shared.available_permits(), room.alone.available_permits());
        let hold = |size: usize, is_read| {
            let response = Response::new(200, "application/json", Body::Full(vec![b' '; size].into()));
            let response = room.hold(response, is_read);
            assert!(response.code == 200 || response.code == 429);
            (response.code == 200).then_some(response)
        };
        let _small = hold(FREE_ANSWER_BYTES, true).expect("it is free");
        assert_eq!(free(), (ANSWERS_BYTES, 1));
        let large = hold(ANSWERS_BYTES, true).expect("there is room");
        assert_eq!(free(), (0, 1));
        assert!(hold(FREE_ANSWER_BYTES + 1, true).is_none(), "there is no room");
        assert!(hold(FREE_ANSWER_BYTES, true).is_some() && hold(FREE_ANSWER_BYTES + 1, false).is_some());
        let larger = hold(ANSWERS_BYTES + 1, true).expect("it goes alone");
        assert!(hold(ANSWERS_BYTES + 1, true).is_none(), "another is alone");
        let Body::Full(data) = large.body else { panic!("it is whole") };
        let rest = data.slice(ANSWERS_BYTES - 1..);
        drop(data);
        assert_eq!((free(), &rest[..]), ((0, 0), &b" "[..]));
        drop(rest);
        drop(larger);
        assert_eq!(free(), (ANSWERS_BYTES, 1));
    }
}

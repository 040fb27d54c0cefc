//! Votes for candidates: at most one in a term (the Raft paper, section 5.2).
//!
//! openraft orders the candidates of one term by their ids, and a member that has voted for one may vote for a greater
//! one too. A term can then have several leaders, of which the greatest wins: their log ids are ordered in the same way.
//! All versions of Quorate must keep to one order of votes, since the members of a quorum may run different ones. This
//! member follows that order, and is stricter: it does not answer a second candidate of a term with its vote. Without
//! the answer the vote does not count. Decision 13 has the proof.

use openraft::errors::RaftError;

use crate::raft::node::Instance;
use crate::raft::types::{TypeConfig, VoteRequest, VoteResponse};

/// Answers a candidate.
///
/// # Errors
/// When the instance has stopped.
pub async fn answer(instance: &Instance, request: VoteRequest) -> Result<VoteResponse, RaftError<TypeConfig>> {
    let candidate = request.vote;
    if let Some(vote) = instance.log.votes().excludes(&candidate) {
        return Ok(VoteResponse::new(vote, None, false));
    }
    let mut response = instance.raft.vote(request).await?;
    // Another vote of the same term may have been saved meanwhile, and before this one.
    response.vote_granted &= instance.log.votes().begin_with(&candidate);
    Ok(response)
}

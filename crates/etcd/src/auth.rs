//! The auth service. There are no users and roles: client certificates decide who may connect.

use tonic::{Request, Response, Status};

use crate::errors;
use crate::pb::etcdserverpb::{self as pb, auth_server::Auth};
use crate::shared::Shared;

pub(crate) struct AuthService(pub(crate) Shared);

type Answer = Result<Response<pb::AuthResponse>, Status>;

/// Implements the given calls, which need users, with etcd's error that authentication is not enabled.
macro_rules! not_enabled {
    ($($call:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl Auth for AuthService {
            async fn auth_status(
                &self,
                _: Request<pb::AuthRequest>,
            ) -> Result<Response<pb::AuthStatusResponse>, Status> {
                let header = Some(self.0.current_header());
                Ok(Response::new(pb::AuthStatusResponse { header, ..pb::AuthStatusResponse::default() }))
            }

            $(async fn $call(&self, _: Request<pb::AuthRequest>) -> Answer {
                Err(errors::AUTH_NOT_ENABLED.into())
            })*
        }
    };
}

not_enabled!(
    auth_enable,
    auth_disable,
    authenticate,
    user_add,
    user_get,
    user_list,
    user_delete,
    user_change_password,
    user_grant_role,
    user_revoke_role,
    role_add,
    role_get,
    role_list,
    role_delete,
    role_grant_permission,
    role_revoke_permission,
);

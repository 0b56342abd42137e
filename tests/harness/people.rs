//! People with sessions, made through the library: no way to sign in is needed.

use super::world::World;
use statusledger::access::people::{self, Profile};
use statusledger::access::scope::Role;
use statusledger::access::session::{self, Method};
use statusledger::audit::Act;
use statusledger::id::{SessionId, UserId, WorkspaceId};

/// Somebody who is signed in.
pub struct Person {
    pub id: UserId,
    pub session: SessionId,
    /// `Cookie`.
    pub cookie: String,
    /// `X-CSRF-Token`.
    pub csrf: String,
}

impl World {
    /// Makes a person of that name with one role, and signs them in.
    pub async fn person_of(&self, name: &str, workspace: WorkspaceId, role: Role) -> Person {
        self.person(&format!("{name}@example.com"), &[(workspace, role)]).await
    }

    /// Makes somebody a member, without an entry.
    pub async fn join(&self, workspace: WorkspaceId, user: UserId, role: Role) {
        sqlx::query("INSERT INTO members (workspace_id, user_id, role) VALUES ($1, $2, $3)")
            .bind(workspace.uuid())
            .bind(user.uuid())
            .bind(role.name())
            .execute(&mut self.database.superuser().await)
            .await
            .unwrap();
    }

    /// Makes a person who has these roles, and signs them in.
    pub async fn person(&self, email: &str, roles: &[(WorkspaceId, Role)]) -> Person {
        let node = self.node();
        let (gate, data_keys) = (&node.gate, node.writer.data_keys());
        let id = UserId::new();
        let profile = Profile { email: Some(email.to_owned()), name: None };
        let mut tx = session::person(&gate.database, id).await.unwrap();
        people::insert(&mut tx, &gate.secret, data_keys, gate.instance, id, &profile).await.unwrap();
        let (session, value) =
            session::begin(&mut tx, gate, data_keys, id, Method::Link, None, &Act::operator()).await.unwrap();
        tx.commit().await.unwrap();
        for (workspace, role) in roles {
            self.join(*workspace, id, *role).await;
        }
        let shown = session::read(&gate.secret, &value).unwrap();
        let csrf = session::csrf_token(&gate.secret, &shown);
        Person { id, session, cookie: format!("{}={}", gate.sessions.cookie_name(), value.as_str()), csrf }
    }
}

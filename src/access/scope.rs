//! Who may do what: permissions, the scopes of keys, the roles of members.
//!
//! A route needs one [`Permission`]. A key holds scopes, each of which grants some; a member holds a role, which grants
//! some too. The permission is a type ([`Needs`]), so that a handler says in its signature what it takes, and what
//! changes something can only be called with proof of a permission that changes things ([`Acts`]).

use std::fmt;
use std::str::FromStr;

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Permission {
    /// See the workspace.
    WorkspaceRead,
    /// Rename the workspace, change what it asks of its members.
    WorkspaceWrite,
    /// Delete the workspace.
    WorkspaceDelete,
    /// See sources, their subjects, and how apps stand.
    SourcesRead,
    /// Make, change and remove sources.
    SourcesWrite,
    /// See destinations and their deliveries.
    DestinationsRead,
    /// Make, change and remove destinations; redeliver.
    DestinationsWrite,
    /// Read entries, proofs and checkpoints.
    LedgerRead,
    /// Take the ledger away: exports, receipts, openings.
    LedgerExport,
    /// Search the audit entries.
    AuditRead,
    /// Put on the record that a configuration was applied.
    Configure,
    /// See who is a member.
    MembersRead,
    /// Invite, change and remove members.
    MembersWrite,
    /// See which API keys there are.
    KeysRead,
    /// Make, rotate and revoke API keys.
    KeysWrite,
    /// Administer the instance: make workspaces, disable people.
    Instance,
    /// See everybody on the instance.
    PeopleRead,
    /// See and end one's own sessions, accept an invitation; list the workspaces that one has a part in.
    OneSelf,
}

impl Permission {
    /// Whether it is about the instance: granted by a role in the instance's own workspace, or a key of the instance's.
    #[must_use]
    pub const fn of_the_instance(self) -> bool {
        matches!(self, Self::Instance | Self::PeopleRead)
    }

    /// The narrowest scopes that grant it, each of which does; `read`, `write` and `admin` do where they contain it. None
    /// where every key has it.
    #[must_use]
    pub fn scopes(self) -> Vec<Scope> {
        if EVERYBODY.has(self) {
            return Vec::new();
        }
        let granting = || Scope::all().map(|(scope, _)| scope).filter(|scope| scope.grants().has(self));
        let least = granting().map(|scope| scope.grants().count()).min();
        granting().filter(|scope| Some(scope.grants().count()) == least).collect()
    }

    /// What a key needs for it, in words: `sources:read`, `destinations:write or sources:write`.
    #[must_use]
    pub fn scopes_in_words(self) -> String {
        let names: Vec<&str> = self.scopes().into_iter().map(Scope::name).collect();
        if names.is_empty() { "any scope".to_owned() } else { names.join(" or ") }
    }
}

use Permission as P;

/// Permissions, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions(u32);

impl Permissions {
    /// These.
    #[must_use]
    pub const fn of(list: &[Permission]) -> Self {
        let (mut bits, mut i) = (0, 0);
        while i < list.len() {
            bits |= 1 << list[i] as u8;
            i += 1;
        }
        Self(bits)
    }

    /// Whether it has this one.
    #[must_use]
    pub const fn has(self, one: Permission) -> bool {
        self.0 & (1 << one as u8) != 0
    }

    /// Those of either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not about the instance: what a key has that does not reach the whole of it.
    #[must_use]
    pub const fn of_one_workspace(self) -> Self {
        Self(self.0 & !Self::of(&[P::Instance, P::PeopleRead]).0)
    }

    /// How many they are.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.0.count_ones()
    }

    /// As a number, to be kept in a row.
    #[must_use]
    pub const fn bits(self) -> i64 {
        self.0 as i64
    }

    /// Of such a number.
    #[must_use]
    pub const fn from_bits(bits: i64) -> Self {
        Self(bits as u32)
    }

    /// Whether all of `other` are in it: nobody gives away what he has not.
    #[must_use]
    pub const fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// What needs no grant.
const EVERYBODY: Permissions = Permissions::of(&[P::OneSelf]);
const READ: Permissions =
    EVERYBODY.or(Permissions::of(&[P::WorkspaceRead, P::SourcesRead, P::DestinationsRead, P::LedgerRead]));
const WRITE: Permissions = READ.or(Permissions::of(&[P::SourcesWrite, P::DestinationsWrite, P::Configure]));
const AUDIT: Permissions =
    READ.or(Permissions::of(&[P::LedgerExport, P::AuditRead, P::MembersRead, P::KeysRead, P::PeopleRead]));
const ADMIN: Permissions =
    WRITE.or(AUDIT).or(Permissions::of(&[P::WorkspaceWrite, P::MembersWrite, P::KeysWrite, P::Instance]));
const OWNER: Permissions = ADMIN.or(Permissions::of(&[P::WorkspaceDelete]));

/// A scope: what a key is given, by its name in the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope(u8);

/// Name, what it grants, in words. The order is that of the names.
const SCOPES: &[(&str, Permissions, &str)] = &[
    ("admin", OWNER, "everything in its workspace, members and keys too"),
    ("audit:read", Permissions::of(&[P::WorkspaceRead, P::AuditRead]), "searches the audit entries"),
    (
        "destinations:read",
        Permissions::of(&[P::WorkspaceRead, P::DestinationsRead]),
        "sees destinations and deliveries",
    ),
    (
        "destinations:write",
        Permissions::of(&[P::WorkspaceRead, P::DestinationsRead, P::DestinationsWrite, P::Configure]),
        "changes destinations, redelivers; one hears only what its maker may read (ledger:read, audit:read; openings: \
         ledger:export)",
    ),
    ("keys:read", Permissions::of(&[P::WorkspaceRead, P::KeysRead]), "sees which keys there are"),
    (
        "keys:write",
        Permissions::of(&[P::WorkspaceRead, P::KeysRead, P::KeysWrite]),
        "makes, rotates and revokes keys that have no more than it has itself",
    ),
    (
        "ledger:export",
        Permissions::of(&[P::WorkspaceRead, P::LedgerRead, P::LedgerExport]),
        "takes exports and receipts away, opens sealed values",
    ),
    (
        "ledger:read",
        Permissions::of(&[P::WorkspaceRead, P::LedgerRead]),
        "reads entries, proofs, checkpoints",
    ),
    ("members:read", Permissions::of(&[P::WorkspaceRead, P::MembersRead]), "sees who is a member"),
    (
        "members:write",
        Permissions::of(&[P::WorkspaceRead, P::MembersRead, P::MembersWrite]),
        "invites, changes and removes members whose roles have no more than it has itself (with read: viewers)",
    ),
    ("read", READ, "reads status, sources, destinations and the ledger"),
    ("sources:read", Permissions::of(&[P::WorkspaceRead, P::SourcesRead]), "sees sources and how apps stand"),
    (
        "sources:write",
        Permissions::of(&[P::WorkspaceRead, P::SourcesRead, P::SourcesWrite, P::Configure]),
        "makes, changes and removes sources",
    ),
    ("workspace:read", Permissions::of(&[P::WorkspaceRead]), "sees the workspace"),
    (
        "workspace:write",
        Permissions::of(&[P::WorkspaceRead, P::WorkspaceWrite]),
        "renames the workspace, sets its rules",
    ),
    ("write", WRITE, "reads, and changes sources and destinations"),
];

impl Scope {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        SCOPES[usize::from(self.0)].0
    }

    /// What it grants.
    #[must_use]
    pub fn grants(self) -> Permissions {
        SCOPES[usize::from(self.0)].1.or(EVERYBODY)
    }

    /// All of them, with what each does in words.
    pub fn all() -> impl Iterator<Item = (Self, &'static str)> {
        SCOPES.iter().zip(0_u8..).map(|((_, _, words), i)| (Self(i), *words))
    }
}

/// No scope of that name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a scope")]
pub struct NoScope(String);

impl FromStr for Scope {
    type Err = NoScope;
    fn from_str(name: &str) -> Result<Self, NoScope> {
        Self::all()
            .find(|(scope, _)| scope.name() == name)
            .map(|(scope, _)| scope)
            .ok_or_else(|| NoScope(name.chars().take(40).collect()))
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl serde::Serialize for Scope {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.name())
    }
}

impl<'de> serde::Deserialize<'de> for Scope {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The scopes of a key: at least one, each once, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

/// Scopes that are none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopesError {
    /// Not a scope.
    #[error(transparent)]
    NoScope(#[from] NoScope),
    /// None at all.
    #[error("a key needs at least one scope")]
    Empty,
    /// Not in their order, or one twice: a key has one spelling.
    #[error("the scopes of a key stand in the order of their names, each once")]
    Order,
}

impl Scopes {
    /// Of a list in any order.
    ///
    /// # Errors
    /// If it is empty.
    pub fn new(mut list: Vec<Scope>) -> Result<Self, ScopesError> {
        list.sort_unstable();
        list.dedup();
        if list.is_empty() { Err(ScopesError::Empty) } else { Ok(Self(list)) }
    }

    /// Each.
    #[must_use]
    pub fn list(&self) -> &[Scope] {
        &self.0
    }

    /// What they grant together.
    #[must_use]
    pub fn grants(&self) -> Permissions {
        self.0.iter().fold(Permissions::default(), |all, scope| all.or(scope.grants()))
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.0.iter().enumerate() {
            write!(f, "{}{scope}", if i == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl FromStr for Scopes {
    type Err = ScopesError;
    /// As they stand in a key.
    fn from_str(text: &str) -> Result<Self, ScopesError> {
        let list = text.split('.').map(Scope::from_str).collect::<Result<Vec<_>, _>>()?;
        if list.windows(2).any(|pair| pair[0] >= pair[1]) {
            return Err(ScopesError::Order);
        }
        Self::new(list)
    }
}

/// What a member is in a workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Everything, and may delete the workspace.
    Owner,
    /// Everything but that.
    Admin,
    /// Reads, and changes sources and destinations.
    Member,
    /// Reads.
    Viewer,
    /// Reads and exports everything, the audit entries too; changes nothing.
    Auditor,
}

impl Role {
    /// Each.
    pub const ALL: [Self; 5] = [Self::Owner, Self::Admin, Self::Member, Self::Viewer, Self::Auditor];

    /// Its name in rows and entries.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    /// What it grants.
    #[must_use]
    pub const fn grants(self) -> Permissions {
        match self {
            Self::Owner => OWNER,
            Self::Admin => ADMIN,
            Self::Member => WRITE.or(Permissions::of(&[P::MembersRead])),
            Self::Viewer => READ,
            Self::Auditor => AUDIT,
        }
    }
}

/// A permission as a type: what a handler takes.
pub trait Needs: Send + Sync + 'static {
    /// Which.
    const PERMISSION: Permission;
    /// Whether something is done under it that goes on the record, whatever the method.
    const ACTS: bool;
}

/// A permission under which something is done that goes on the record.
pub trait Acts: Needs {}

macro_rules! needs {
    ($($(#[$doc:meta])* $name:ident),*; $($(#[$adoc:meta])* $act:ident),*) => {
        /// The permissions, as types.
        pub mod needs {
            use super::{Acts, Needs, Permission};
            $($(#[$doc])* #[derive(Debug, Clone, Copy)] pub struct $name;
              impl Needs for $name {
                  const PERMISSION: Permission = Permission::$name;
                  const ACTS: bool = false;
              })*
            $($(#[$adoc])* #[derive(Debug, Clone, Copy)] pub struct $act;
              impl Needs for $act {
                  const PERMISSION: Permission = Permission::$act;
                  const ACTS: bool = true;
              }
              impl Acts for $act {})*
        }
    };
}

needs! {
    /// See the workspace.
    WorkspaceRead,
    /// See sources.
    SourcesRead,
    /// See destinations.
    DestinationsRead,
    /// Read the ledger.
    LedgerRead,
    /// Search the audit entries.
    AuditRead,
    /// See members.
    MembersRead,
    /// See keys.
    KeysRead,
    /// See everybody on the instance.
    PeopleRead,
    /// What is one's own.
    OneSelf
    ;
    /// Change the workspace.
    WorkspaceWrite,
    /// Delete the workspace.
    WorkspaceDelete,
    /// Change sources.
    SourcesWrite,
    /// Change destinations.
    DestinationsWrite,
    /// Take the ledger away.
    LedgerExport,
    /// Say that a configuration was applied.
    Configure,
    /// Change members.
    MembersWrite,
    /// Change keys.
    KeysWrite,
    /// Administer the instance.
    Instance
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn scopes_are_named_in_order_and_without_the_separators_of_a_key() {
        assert!(SCOPES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(SCOPES.iter().all(|(name, _, _)| !name.contains(['_', '.'])));
    }

    #[test]
    fn scopes_have_one_spelling() {
        let scopes: Scopes = "destinations:write.ledger:read".parse().unwrap();
        assert_eq!(scopes.to_string(), "destinations:write.ledger:read");
        assert_eq!("ledger:read.destinations:write".parse::<Scopes>(), Err(ScopesError::Order));
        assert_eq!("read.read".parse::<Scopes>(), Err(ScopesError::Order));
        assert!("".parse::<Scopes>().is_err());
        assert!("Read".parse::<Scopes>().is_err());
    }

    #[test]
    fn the_words_of_a_scope_that_is_limited_by_others_say_so() {
        for (scope, words) in Scope::all() {
            let limited = ["destinations:write", "keys:write", "members:write"].contains(&scope.name());
            assert_eq!(
                words.contains("no more than") || words.contains("only what"),
                limited,
                "{scope}: {words}"
            );
        }
    }

    #[test]
    fn what_grants_a_permission_is_named_by_the_narrowest_scopes() {
        let words = |permission: Permission| permission.scopes_in_words();
        assert_eq!(words(P::SourcesRead), "sources:read");
        assert_eq!(words(P::WorkspaceRead), "workspace:read");
        assert_eq!(words(P::Configure), "destinations:write or sources:write");
        assert_eq!(words(P::WorkspaceDelete), "admin");
        assert_eq!(words(P::OneSelf), "any scope");
    }

    #[test]
    fn nobody_who_only_reads_may_change_anything() {
        let changes = [
            P::WorkspaceWrite,
            P::WorkspaceDelete,
            P::SourcesWrite,
            P::DestinationsWrite,
            P::Configure,
            P::MembersWrite,
            P::KeysWrite,
            P::Instance,
        ];
        for reader in
            [Role::Viewer.grants(), Role::Auditor.grants(), "read".parse::<Scope>().unwrap().grants()]
        {
            assert!(changes.iter().all(|change| !reader.has(*change)));
        }
        assert!(Role::Auditor.grants().has(P::LedgerExport) && Role::Auditor.grants().has(P::AuditRead));
        assert!(Role::Owner.grants().covers(Role::Admin.grants()));
        assert!(!Role::Admin.grants().has(P::WorkspaceDelete));
    }
}

//! The open edits of Google Play. An account has one open edit an app: a new one ends the one before.

use std::collections::VecDeque;
use std::time::Duration;

use time::OffsetDateTime;

use crate::scenario::Release;

/// How long an edit lives. Google names no number; its answers were seen with about a week.
const LIFE: Duration = Duration::from_secs(7 * 24 * 3600);

/// How many edits are remembered, open or not.
const REMEMBERED: usize = 1024;

/// An edit: the releases of an app as they were when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct Edit {
    pub(crate) id: String,
    pub(crate) expires: OffsetDateTime,
    pub(crate) releases: Vec<Release>,
    account: usize,
    package: String,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Deleted,
    Committed,
}

/// Why an edit cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EditRefused {
    /// There is none of that id in the app, of this account.
    Unknown,
    /// It was deleted, or a newer one ended it.
    Deleted,
    /// It was committed.
    Committed,
    /// Its time is over.
    Expired,
}

/// All edits, and how many were committed.
#[derive(Debug, Default)]
pub(crate) struct Edits {
    edits: VecDeque<Edit>,
    commits: u64,
}

impl Edits {
    /// Opens an edit, which ends those that the account has open in the app.
    pub(crate) fn open(&mut self, account: usize, package: &str, releases: Vec<Release>) -> Edit {
        for edit in self.edits.iter_mut().filter(|edit| edit.account == account && edit.package == package) {
            if edit.state == State::Open {
                edit.state = State::Deleted;
            }
        }
        let number = uuid::Uuid::new_v4().as_u128() as u64;
        let edit = Edit {
            id: format!("{number:020}"),
            expires: OffsetDateTime::now_utc() + LIFE,
            releases,
            account,
            package: package.to_owned(),
            state: State::Open,
        };
        if self.edits.len() == REMEMBERED {
            self.edits.pop_front();
        }
        self.edits.push_back(edit.clone());
        edit
    }

    /// An edit that can be used.
    pub(crate) fn find(&mut self, account: usize, package: &str, id: &str) -> Result<&mut Edit, EditRefused> {
        let found = self
            .edits
            .iter_mut()
            .find(|edit| edit.id == id && edit.account == account && edit.package == package);
        let edit = found.ok_or(EditRefused::Unknown)?;
        match edit.state {
            State::Deleted => Err(EditRefused::Deleted),
            State::Committed => Err(EditRefused::Committed),
            State::Open if edit.expires <= OffsetDateTime::now_utc() => Err(EditRefused::Expired),
            State::Open => Ok(edit),
        }
    }

    /// Deletes an edit.
    pub(crate) fn delete(&mut self, account: usize, package: &str, id: &str) -> Result<(), EditRefused> {
        self.find(account, package, id)?.state = State::Deleted;
        Ok(())
    }

    /// Commits an edit, which ends everyone else's in the app.
    pub(crate) fn commit(&mut self, account: usize, package: &str, id: &str) -> Result<Edit, EditRefused> {
        let edit = self.find(account, package, id)?;
        edit.state = State::Committed;
        let committed = edit.clone();
        self.forget(package);
        self.commits += 1;
        Ok(committed)
    }

    /// Ends all edits of an app.
    pub(crate) fn forget(&mut self, package: &str) {
        for edit in self.edits.iter_mut().filter(|edit| edit.package == package) {
            if edit.state == State::Open {
                edit.state = State::Deleted;
            }
        }
    }

    /// How many can be used.
    pub(crate) fn open_count(&self) -> usize {
        let now = OffsetDateTime::now_utc();
        self.edits.iter().filter(|edit| edit.state == State::Open && edit.expires > now).count()
    }

    /// How many were committed.
    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }
}

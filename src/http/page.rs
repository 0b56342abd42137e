//! Pages of lists: `limit`, `cursor`, and `next` where there is more.
//!
//! A cursor is the place of the last item of the page before, in the list's own order; what is added or removed
//! meanwhile neither repeats nor hides another item. It tells nothing that its item did not.

use super::problem::Problem;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::IntoParams;

/// Items of a page, at most, and where nothing is asked for.
pub const PAGE: i64 = 1000;

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// At most this many (1 to 1000; default 1000).
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<i64>,
    /// The `next` of the page before.
    #[param(max_length = 2000)]
    cursor: Option<String>,
}

/// A place in a list that is ordered by when things were made: microseconds, and the id.
pub type Made = (i64, uuid::Uuid);

/// A page to be read.
#[derive(Debug)]
pub struct Page<P> {
    limit: i64,
    /// After this place.
    pub after: Option<P>,
}

impl PageQuery {
    /// The page.
    ///
    /// # Errors
    /// If the limit is out of bounds, or the cursor is none of ours.
    pub fn page<P: DeserializeOwned>(&self) -> Result<Page<P>, Problem> {
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=PAGE).contains(&limit) {
            return Err(Problem::bad_request(format!("limit is 1 to {PAGE}")));
        }
        let after = self.cursor.as_ref().map(|cursor| {
            let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
            // NUL, which the database's text does not take.
            let bytes = bytes.filter(|bytes| !bytes.windows(6).any(|w| w == b"\\u0000"));
            bytes
                .and_then(|bytes| serde_json::from_slice(&bytes).ok())
                .ok_or_else(|| Problem::bad_request("cursor is the next of a page of this list"))
        });
        Ok(Page { limit, after: after.transpose()? })
    }
}

impl<P: Serialize> Page<P> {
    /// A page of one thing alone.
    #[must_use]
    pub const fn one() -> Self {
        Self { limit: 1, after: None }
    }

    /// How many rows to read: one more than fit, to see whether there are more.
    #[must_use]
    pub const fn rows(&self) -> i64 {
        self.limit + 1
    }

    /// Cuts what was read to the page, and makes the cursor of the next one.
    pub fn cut<T>(&self, items: &mut Vec<T>, place: impl Fn(&T) -> P) -> Option<String> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        if items.len() <= limit {
            return None;
        }
        items.truncate(limit);
        // Numbers, texts and ids are always JSON.
        items.last().and_then(|last| serde_json::to_vec(&place(last)).ok()).map(|b| URL_SAFE_NO_PAD.encode(b))
    }
}

impl Page<Made> {
    /// When the place before was made.
    #[must_use]
    pub fn after_at(&self) -> Option<OffsetDateTime> {
        // A time that no clock of ours showed, and the database may not hold, is before everything: the page is the first.
        self.after.map(|(micros, _)| {
            OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1000)
                .ok()
                .filter(|at| *at >= OffsetDateTime::UNIX_EPOCH)
                .unwrap_or(OffsetDateTime::UNIX_EPOCH)
        })
    }

    /// Its id.
    #[must_use]
    pub fn after_id(&self) -> Option<uuid::Uuid> {
        self.after.map(|(_, id)| id)
    }
}

/// The place of something that was made then.
#[must_use]
pub fn made(at: OffsetDateTime, id: uuid::Uuid) -> Made {
    // The database's times are whole microseconds, and of years that fit.
    (i64::try_from(at.unix_timestamp_nanos() / 1000).unwrap_or(i64::MAX), id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_cursor_leads_on_from_where_the_page_ended() {
        let page: Page<Made> = PageQuery { limit: Some(2), cursor: None }.page().unwrap();
        let ids: Vec<_> = (0..3).map(|_| uuid::Uuid::now_v7()).collect();
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_000).unwrap();
        let mut items = ids.clone();
        assert_eq!(page.rows(), 3);
        let next = page.cut(&mut items, |id| made(at, *id)).unwrap();
        assert_eq!(items, ids[..2]);
        let page: Page<Made> = PageQuery { limit: None, cursor: Some(next) }.page().unwrap();
        assert_eq!((page.after_at(), page.after_id()), (Some(at), Some(ids[1])));
        assert_eq!(page.cut(&mut vec![ids[2]], |id| made(at, *id)), None);
        // Times before there were any, of which the database's calendar has only some.
        for micros in [i64::MIN, -377_705_116_800_000_000, -1, i64::MAX] {
            let page = Page::<Made> { limit: 1, after: Some((micros, ids[0])) };
            assert_eq!(page.after_at(), Some(OffsetDateTime::UNIX_EPOCH), "{micros}");
        }
        for wrong in ["", "x", "bm9uZQ", "W10"] {
            assert!(PageQuery { limit: None, cursor: Some(wrong.into()) }.page::<Made>().is_err(), "{wrong}");
        }
        assert!(PageQuery { limit: Some(0), cursor: None }.page::<Made>().is_err());
    }
}

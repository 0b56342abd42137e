//! Types that hold what may stand in no log: their `Debug` says what they are and nothing of what is in them.

/// Implements `Debug` for types without anything of their content.
macro_rules! redacted {
    ($($kind:ty),+ $(,)?) => {
        $(impl std::fmt::Debug for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($kind), " { .. }"))
            }
        })+
    };
}

pub(crate) use redacted;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use crate::access::context::RequestContext;
    use crate::access::denial::{FailedSignIn, Reason};
    use crate::access::people::Profile;
    use crate::access::session::Method;
    use crate::access::sign_in::flow::{Goal, Pending};
    use crate::access::sign_in::provider::Proven;
    use crate::config::Settings;
    use crate::delivery::destination::NewDestination;
    use crate::delivery::http::{DestinationChange, DestinationRequest};
    use crate::delivery::routes::Filter;
    use crate::source::http::{SourceRequest, WebhookSecretRequest};
    use crate::source::{Kind, NewSource};
    use serde_json::{Value, json};
    use zeroize::Zeroizing;

    const MARK: &str = "marked-7f3a";

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn nothing_that_is_printed_for_debugging_shows_a_secret_or_a_person() {
        let mark = || MARK.to_owned();
        let context = RequestContext { user_agent: Some(mark()), ..RequestContext::none() };
        let id = context.id.to_string();
        let profile = Profile { email: Some(mark()), name: Some(mark()) };
        let printed: [String; 13] = [
            format!("{:?}", Settings { database_url: Some(mark()), ..Settings::default() }),
            format!("{:?}", Settings { owner_database_url: Some(mark()), ..Settings::default() }),
            format!("{context:?}"),
            format!("{profile:?}"),
            format!("{:?}", Proven { issuer: mark(), subject: mark(), profile: profile.clone() }),
            format!("{:?}", Goal::SignIn(Some(mark()))),
            format!(
                "{:?}",
                Pending::Provider {
                    provider: "p".into(),
                    nonce: mark(),
                    verifier: mark(),
                    goal: Goal::SignIn(None)
                }
            ),
            format!(
                "{:?}",
                NewDestination {
                    name: mark(),
                    url: mark(),
                    filter: Filter::default(),
                    openings: true,
                    max_in_flight: 1
                }
            ),
            format!("{:?}", read::<DestinationRequest>(json!({ "name": MARK, "url": MARK }))),
            format!("{:?}", read::<DestinationChange>(json!({ "url": MARK }))),
            format!(
                "{:?}{:?}",
                read::<SourceRequest>(json!({ "kind": "app_store", "name": MARK, "webhook_secret": MARK })),
                read::<WebhookSecretRequest>(json!({ "secret": MARK }))
            ),
            format!(
                "{:?}",
                NewSource {
                    kind: Kind::GooglePlay,
                    name: mark(),
                    settings: json!({ "dedicated_account": MARK }),
                    secret: Some(Zeroizing::new(MARK.into())),
                    webhook_secret: None
                }
            ),
            format!(
                "{:?}{:?}",
                FailedSignIn {
                    method: Method::Link,
                    provider: None,
                    reason: "link",
                    context: context.clone()
                },
                Reason::Csrf
            ),
        ];
        let bytes = format!("{:?}", MARK.as_bytes());
        for text in printed {
            assert!(!text.contains(MARK) && !text.contains(bytes.trim_matches(['[', ']'])), "{text}");
        }
        assert!(format!("{context:?}").contains(&id), "the request's id stands in the log");
        assert!(format!("{:?}", Settings::default()).contains("deadline_s"), "other settings are shown");
    }
}

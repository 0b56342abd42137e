//! The kinds of problems that there are: what a problem is made of, and what its page tells. Nothing else can be answered as
//! a problem, so there is no kind without a page.

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = ($name:literal, $status:literal, $means:literal, $remedy:literal $(,)?)),* $(,)?) => {
        /// A kind of problem, and what its page tells. There is none without a page: a problem cannot be made of anything
        /// else.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind { $($(#[$doc])* $kind),* }

        impl Kind {
            /// Each, in the order of their statuses.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// The last segment of `type`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$kind => $name),* }
            }

            /// Its HTTP status.
            #[must_use]
            pub const fn status(self) -> u16 {
                match self { $(Self::$kind => $status),* }
            }

            /// What it means.
            #[must_use]
            pub const fn means(self) -> &'static str {
                match self { $(Self::$kind => $means),* }
            }

            /// What to do.
            #[must_use]
            pub const fn remedy(self) -> &'static str {
                match self { $(Self::$kind => $remedy),* }
            }
        }
    };
}

kinds! {
    /// `bad-request`.
    BadRequest = (
        "bad-request",
        400,
        "The request is not of the form that the route takes: a parameter that is out of bounds or unknown, a header \
         that cannot be read, or a body that is not JSON.",
        "`detail` says which. The route's parameters are in `/docs`.",
    ),
    /// `unauthorized`.
    Unauthorized = (
        "unauthorized",
        401,
        "The request carries no credentials, or such that this instance does not know, or whose time is over: an API \
         key that was revoked or has expired or whose text was changed, or a session that has ended.",
        "Send a key as `Authorization: Bearer …`, or sign in again. Repeating the request does not help.",
    ),
    /// `scope`.
    Scope = (
        "scope",
        403,
        "The key's scopes do not grant this, or what is asked for would give more than the key has.",
        "Use a key with a scope that does; the scopes of a key stand in its text.",
    ),
    /// `no-passkeys`.
    NoPasskeys = (
        "no-passkeys",
        403,
        "This instance is not reached by a name that passkeys can belong to: its public address is a number, or it has none \
         and was not reached as localhost.",
        "Use the address that the operator has set (`public_url`), or another way to sign in.",
    ),
    /// `role`.
    Role = (
        "role",
        403,
        "Your role in this workspace does not grant this, or what is asked for would give more than you have.",
        "Ask an administrator of the workspace.",
    ),
    /// `instance`.
    Instance = (
        "instance",
        403,
        "This is for the instance as a whole, and the key is one workspace's.",
        "Use a key that reaches the whole instance.",
    ),
    /// `session`.
    Session = (
        "session",
        403,
        "This is for people who are signed in, and the request carries an API key.",
        "Sign in, and send the session's cookie.",
    ),
    /// `csrf`.
    Csrf = (
        "csrf",
        403,
        "A change in a session needs the session's token as `X-CSRF-Token`, from a page of this instance; and nobody else's \
         page asks in a session for what goes on the record.",
        "`GET /v1/session` tells the token to pages of this instance.",
    ),
    /// `passkey-required`.
    PasskeyRequired = (
        "passkey-required",
        403,
        "The workspace asks its owners and administrators to act in sessions that began with a passkey, one that did not come \
         by way of an identity provider after that was asked; or what is asked for is only done in such a session.",
        "Sign in with a passkey; `detail` says if yours does not count.",
    ),
    /// `sign-in-again`.
    SignInAgain = (
        "sign-in-again",
        403,
        "Whoever has no passkey yet changes their ways to sign in only within ten minutes of a sign-in: a session that was \
         stolen must not become a way in that lasts.",
        "Sign in again. Whoever has no other way in than one-time links asks the operator for one.",
    ),
    /// `other-browser`.
    OtherBrowser = (
        "other-browser",
        403,
        "The sign-in was not begun in this browser, or too long ago.",
        "Begin again, and end it in the same browser within ten minutes.",
    ),
    /// `answered`.
    Answered = (
        "answered",
        403,
        "The sign-in, or what a passkey was asked, was answered already, or was begun too long ago.",
        "Begin again.",
    ),
    /// `other-site`.
    OtherSite = (
        "other-site",
        403,
        "A page of another site sent the request.",
        "Open this instance's own page and sign in there.",
    ),
    /// `declined`.
    Declined = (
        "declined",
        403,
        "The identity provider did not sign the person in, or they declined there.",
        "Try again, or sign in another way.",
    ),
    /// `provider-answer`.
    ProviderAnswer = (
        "provider-answer",
        403,
        "The identity provider's answer does not hold: its code was not taken, or its ID token is not signed as it should be, \
         too old, or meant for another sign-in. The audit entry says which.",
        "Try again. If it stays so, the operator compares the provider's settings here and there.",
    ),
    /// `unknown-identity`.
    UnknownIdentity = (
        "unknown-identity",
        403,
        "Nobody is known here by this account.",
        "Ask an owner of the workspace for an invitation.",
    ),
    /// `identity-taken`.
    IdentityTaken = (
        "identity-taken",
        403,
        "The account at the identity provider belongs to somebody else here.",
        "Sign in with it as that person, or connect another account.",
    ),
    /// `email-taken`.
    EmailTaken = (
        "email-taken",
        403,
        "Somebody with the account's e-mail address is known here already.",
        "Sign in as before, then connect the account on `/account`.",
    ),
    /// `disabled`.
    Disabled = (
        "disabled",
        403,
        "The person cannot sign in here any more.",
        "Ask the operator.",
    ),
    /// `invitation`.
    Invitation = (
        "invitation",
        403,
        "The invitation does not exist, or was used or withdrawn, or has expired.",
        "Ask whoever invited you for another.",
    ),
    /// `link`.
    Link = (
        "link",
        403,
        "The one-time link does not exist, or was used already, or has expired.",
        "The operator makes another: `statusledger sign-in-link`.",
    ),
    /// `unknown-passkey`.
    UnknownPasskey = (
        "unknown-passkey",
        403,
        "The passkey is not known here, or was removed.",
        "Use another passkey, or sign in another way.",
    ),
    /// `passkey`.
    Passkey = (
        "passkey",
        403,
        "The passkey's answer does not hold: it is for another challenge or site, without the person's verification, or \
         its counter did not go up, as with a copy.",
        "Try again. If it stays so, remove the passkey and add another.",
    ),
    /// `not-found`.
    NotFound = (
        "not-found",
        404,
        "There is no such thing, or none that you may know of: another's workspace looks like one that does not exist.",
        "Look at the address, and at whose key or session it is.",
    ),
    /// `unknown-provider`.
    UnknownProvider = (
        "unknown-provider",
        404,
        "There is no such identity provider in the settings.",
        "Begin at `/sign-in`, which shows those that there are.",
    ),
    /// `method-not-allowed`.
    MethodNotAllowed = (
        "method-not-allowed",
        405,
        "The address exists, but does not take this method.",
        "The header `Allow` and `/docs` say which it takes.",
    ),
    /// `too-slow`.
    TooSlow = (
        "too-slow",
        408,
        "The body did not arrive within 30 seconds.",
        "Send it again. Under an `Idempotency-Key` nothing can happen twice.",
    ),
    /// `conflict`.
    Conflict = (
        "conflict",
        409,
        "It collides with what is there: a name that is taken, something that has ended already, or an \
         `Idempotency-Key` that was used for another request within 24 hours.",
        "`detail` says with what.",
    ),
    /// `in-progress`.
    InProgress = (
        "in-progress",
        409,
        "A request with the same `Idempotency-Key` is being carried out.",
        "Send it again after the seconds that `Retry-After` names: then you get its answer.",
    ),
    /// `answer-lost`.
    AnswerLost = (
        "answer-lost",
        409,
        "A request with the same `Idempotency-Key` was carried out, and its answer is lost: the node that carried it out died \
         or failed before the answer was kept. Nothing is done again.",
        "Look at what there is now. A secret that was shown in the answer is lost: make or rotate it again, under another \
         key.",
    ),
    /// `precondition-failed`.
    PreconditionFailed = (
        "precondition-failed",
        412,
        "What you want to change is not in the state that `If-Match` names.",
        "Read it again, decide again, and send the change with the new `ETag`.",
    ),
    /// `too-large`.
    TooLarge = (
        "too-large",
        413,
        "The body is larger than the route takes (1 MiB).",
        "Send less at once.",
    ),
    /// `unsupported-media-type`.
    UnsupportedMediaType = (
        "unsupported-media-type",
        415,
        "The body is of a type that the route does not take.",
        "Send JSON, as `Content-Type: application/json`.",
    ),
    /// `invalid`.
    Invalid = (
        "invalid",
        422,
        "The request can be read, but asks for what cannot be: a field that is missing, unknown or out of bounds.",
        "`detail` says which.",
    ),
    /// `too-many-requests`.
    TooManyRequests = (
        "too-many-requests",
        429,
        "The key or the session has asked too often, or lets too many requests wait for entries.",
        "Wait the seconds that `Retry-After` names. `RateLimit` in each answer says what remains.",
    ),
    /// `internal`.
    Internal = (
        "internal",
        500,
        "The service failed.",
        "The operator finds the cause in the log under the id in `instance`.",
    ),
    /// `provider-unavailable`.
    ProviderUnavailable = (
        "provider-unavailable",
        502,
        "The identity provider does not answer, or not as it should.",
        "Try again. If it stays so, the operator finds the cause in the log under the id in `instance`.",
    ),
    /// `unavailable`.
    Unavailable = (
        "unavailable",
        503,
        "The service cannot answer now: its database is away, or it is starting or stopping. Where something was to be \
         changed, whether it was is not known.",
        "Try again after the seconds that `Retry-After` names, with the same `Idempotency-Key`.",
    ),
}

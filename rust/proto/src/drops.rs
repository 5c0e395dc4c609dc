//! What limits refuse or drop, and the name under which each kind of drop is counted and logged.
//!
//! This is the only table of these names: metrics, logs and the simulator's reports take them from
//! here, and a test compares them with the table in `docs/operating.md`, which says what each one
//! means. The driver's own drops stand here too, because users meet all of them side by side.

macro_rules! drop_reasons {
    ($($variant:ident = $label:literal,)*) => {
        /// Why something was refused or dropped. [`label`](Self::label) is the name of its counter.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum DropReason {
            $(#[doc = concat!("Counted as `", $label, "`.")] $variant,)*
        }

        impl DropReason {
            /// All reasons, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Returns the name of the counter, as metrics and log lines show it.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

drop_reasons! {
    AddressesOverTheLimit = "addresses over the limit",
    AddressesThatDoNotFitTheRecord = "addresses that do not fit the record",
    RecordsForgedOrMalformed = "records forged or malformed",
    MembersDisplaced = "members displaced by newcomers",
    NewcomersBeyondTheCapacity = "newcomers beyond the capacity",
    UndecodableFrames = "undecodable frames",
    FramesOfUnknownType = "frames of unknown type",
    FramesBeforeTheHello = "frames before the hello",
    FramesOfATopicThatWasNotOpened = "frames of a topic that was not opened",
    TopicsOpenedTwiceOrOverTheLimit = "topics opened twice or over the limit",
    TopicsOverTheLimitOfALink = "topics over the limit of a link",
    SecondHellos = "second hellos",
    LinksWithoutAHello = "links without a hello",
    LinksWithoutACommonVersion = "links without a common version",
    LinksToOneself = "links to oneself",
    LinksOverTheLimit = "links over the limit",
    LinksOfPeersThatAreKeptOut = "links of peers that are kept out",
    RecordsOfPeersThatAreKeptOut = "records of peers that are kept out",
    BroadcastsOfPeersThatAreKeptOut = "broadcasts of peers that are kept out",
    AccusationsByPeersThatAreKeptOut = "accusations by peers that are kept out",
    PeersThatWereNotAdmitted = "peers that were not admitted",
    QuestionsWithoutAnAnswer = "questions without an answer",
    PeersThatWaitToBeAskedAboutOverTheLimit = "peers that wait to be asked about over the limit",
    PeersOverTheLimitOfAdmittedOnes = "peers over the limit of admitted ones",
    ConnectionsWithoutAnAnswerInTime = "connections without an answer in time",
    LinksOverTheLimitOfAPeer = "links over the limit of a peer",
    LinksThatMadeRoomForOthers = "links that made room for others",
    LinksOfPeersThatBrokeTheProtocol = "links of peers that broke the protocol",
    ConnectionsOfBannedPeers = "connections of banned peers",
    ConnectionsFromBannedNetworks = "connections from banned networks",
    ConnectionsWithoutTheSwarmSecret = "connections without the swarm's secret",
    ConnectionsWithAnotherSecret = "connections with another secret",
    ConnectionsWithABrokenProof = "connections with a broken proof",
    ConnectionsThatProvedNoSecretInTime = "connections that proved no secret in time",
    ConnectionsThatEndedBeforeTheyWereAdmitted = "connections that ended before they were admitted",
    ConnectionsThatMadeRoomForOthers = "connections that made room for others",
    ConnectionsOverTheLimit = "connections over the limit",
    DialsToPeersWithAnotherSecret = "dials to peers with another secret",
    DialsToPeersWithoutASecret = "dials to peers without a secret",
    LinksToPeersThatAskForASecret = "links to peers that ask for a secret",
    ConnectionsWithoutAnInvitation = "connections without an invitation",
    ConnectionsWithAForgedInvitation = "connections with a forged invitation",
    ConnectionsWithTheInvitationOfAnotherId = "connections with the invitation of another id",
    ConnectionsWithAnInvitationOfAnotherIssuer = "connections with an invitation of another issuer",
    ConnectionsWithAnInvitationToAnotherTopic = "connections with an invitation to another topic",
    ConnectionsWithAnInvitationBeforeItsTime = "connections with an invitation before its time",
    ConnectionsWithAnInvitationThatHasEnded = "connections with an invitation that has ended",
    ConnectionsWithAnInvitationThatWasRevoked = "connections with an invitation that was revoked",
    ConnectionsThatShowedNoInvitationInTime = "connections that showed no invitation in time",
    DialsToPeersWithoutAnInvitationThatHolds = "dials to peers without an invitation that holds",
    DialsToPeersThatRefuseTheInvitation = "dials to peers that refuse the invitation",
    LinksToPeersThatRefuseTheInvitation = "links to peers that refuse the invitation",
    LinksWhoseInvitationsEnded = "links whose invitations ended",
    RevocationsOfOtherIssuers = "revocations of other issuers",
    RevocationsOverTheLimit = "revocations over the limit",
    DialsToPeersThatDoNotServeDiscovery = "dials to peers that do not serve discovery",
    HalfFramesOverTheLimit = "half frames over the limit",
    HalfMessagesOverTheLimit = "half messages over the limit",
    RequestsOverTheLimit = "requests over the limit",
    MessagesToSlowSubscribers = "messages to slow subscribers",
    MessagesThatDidNotComeWhole = "messages that did not come whole",
    StreamsOverTheLimit = "streams over the limit",
    RequestsThatDoNotDecode = "requests that do not decode",
    RequestsOfUnknownKind = "requests of unknown kind",
    LinksWithAFullQueue = "links with a full queue",
    BootstrapPeersAgedOut = "bootstrap peers aged out",
    BootstrapNamesOverTheLimit = "bootstrap names over the limit",
    BootstrapPeersOverTheLimit = "bootstrap peers over the limit",
    DialsToStrangers = "dials to strangers",
    NewcomersOverTheShareOfTheirIntroducer = "newcomers over the share of their introducer",
    RequestsToBeNeighborsOverTheBudget = "requests to be neighbors over the budget",
    WalksOfNewcomersOverTheBudget = "walks of newcomers over the budget",
    WalksOfNewcomersThatFoundNoRoom = "walks of newcomers that found no room",
    UpdatesOverTheBudgetOfAPeer = "updates over the budget of a peer",
    NeighborsThatForwardedNothing = "neighbors that forwarded nothing",
    ViewsThatWereReplacedWithinAMinute = "views that were replaced within a minute",
    RepairOfBroadcastsOverTheBudgetOfAPeer = "repair of broadcasts over the budget of a peer",
    OverlayFramesOverTheBudgetOfAPeer = "overlay frames over the budget of a peer",
    BroadcastsAskedForAgain = "broadcasts asked for again",
    BroadcastsToNeighborsOnly = "broadcasts to neighbors only",
    BroadcastsThatCannotBeJudged = "broadcasts that cannot be judged",
    BroadcastsWithoutAnythingNew = "broadcasts without anything new",
    BroadcastsOfUnknownMembers = "broadcasts of unknown members",
    BroadcastsOfAnotherLifeOfTheirAuthor = "broadcasts of another life of their author",
    BroadcastsThatWereHeardBefore = "broadcasts that were heard before",
    OwnBroadcastsThatCameBack = "own broadcasts that came back",
    BroadcastsOverTheBudgetOfAnAuthor = "broadcasts over the budget of an author",
    BroadcastsOverTheBudgetOfAllAuthors = "broadcasts over the budget of all authors",
    BroadcastsOverTheBudgetOfAPeer = "broadcasts over the budget of a peer",
    BroadcastsWithoutANeighbor = "broadcasts without a neighbor",
    BroadcastsToSlowPeers = "broadcasts to slow peers",
    IntroductionsWithAnotherRecord = "introductions with another's record",
    PeersFoundByALookupOverTheLimit = "peers found by a lookup over the limit",
    SyncsOverTheLimit = "syncs over the limit",
    SyncsOverTheBudgetOfAPeer = "syncs over the budget of a peer",
    SyncsPassedOnToOtherMembers = "syncs passed on to other members",
    ObserversOverTheLimit = "observers over the limit",
    SyncsPassedOnByAnObserver = "syncs passed on by an observer",
    OverlayFramesToAnObserver = "overlay frames to an observer",
    SyncsThatStalled = "syncs that stalled",
    ProbesOverTheLimit = "probes over the limit",
    ProbesForOthersOverTheLimit = "probes for others over the limit",
    LinksToPeersThatOnlyOthersReach = "links to peers that only others reach",
    AccusationsOverTheBudgetOfAnAccuser = "accusations over the budget of an accuser",
    AccusationsOverTheBudgetOfAPeer = "accusations over the budget of a peer",
    AccusationsOfUnsignedSequences = "accusations of a sequence that its owner did not sign",
    AccusationsHeldOverTheLimit = "accusations held over the limit",
    AccusationsByUnknownMembers = "accusations by unknown members",
    AccusationsThatCouldNotBeDisseminated = "accusations that could not be disseminated",
    UnconfirmedMembersOverTheLimit = "unconfirmed members over the limit",
}

impl DropReason {
    /// Returns true if this happens in a healthy swarm too. The driver logs such a drop at DEBUG,
    /// and all others at WARN.
    #[must_use]
    pub const fn is_ordinary(self) -> bool {
        matches!(
            self,
            Self::AccusationsByPeersThatAreKeptOut
                | Self::AccusationsByUnknownMembers
                | Self::BroadcastsOfAnotherLifeOfTheirAuthor
                | Self::BroadcastsOfPeersThatAreKeptOut
                | Self::BroadcastsOfUnknownMembers
                | Self::BroadcastsThatWereHeardBefore
                | Self::BroadcastsWithoutAnythingNew
                | Self::SyncsPassedOnToOtherMembers
                | Self::WalksOfNewcomersThatFoundNoRoom
        )
    }
}

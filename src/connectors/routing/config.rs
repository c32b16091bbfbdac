//! The keys of `routing`, and the checks that need nothing but them.

use super::request::RequestCondition;
use crate::components::ComponentConfig;
use crate::config::types::{Any, Regex, type_of};
use crate::config::{Cx, Node};
use crate::ottl::{ConditionGroup, Context, ErrorMode, GroupError, ParseError};
use crate::pdata::Signal;
use crate::{config, config_enum};

config! {
    /// Sends telemetry to one pipeline or another. Routes are tried in order; what a route takes is gone for those
    /// behind it, unless its action is `copy`. One table serves all signals: a route counts for the signals of the
    /// pipelines it names, and is not there for others.
    pub struct RoutingConfig {
        /// Where telemetry goes that no route takes. Without them it is dropped, and counted in
        /// `tidegate_dropped_items` with the reason `unrouted`.
        pub default_pipelines: Vec<String> = Vec::new(),
        /// What becomes of telemetry that a route cannot judge because its bytes are not what they should be, or
        /// because the condition fails. `ignore` and `silent`: the route does not take it, and `ignore` says so in
        /// the log; `propagate`: the request is refused, and its sender told that its data is bad.
        pub error_mode: ErrorMode = ErrorMode::Ignore,
        /// The routes, in order; at least one.
        pub table: Vec<RouteConfig> = Vec::new(),
    }
    validate = RoutingConfig::check;
}

config! {
    /// One route: a test, and where telemetry goes that passes it. The test is one of `tenant`, `attribute`,
    /// `condition` and `statement`.
    pub struct RouteConfig {
        /// The tenant that a `tenant` processor has set, or a list of several. Costs one comparison a request.
        pub tenant: Vec<String> = Vec::new(),
        /// An attribute, which must have the `value` or fit the `regex`: `resource.X`, `scope.X`, or plain `X` for
        /// attributes of spans, log records and data points.
        pub attribute: String = String::new(),
        /// What the attribute must be: a string, number or boolean. Numbers and booleans equal no strings.
        pub value: Any = Any::Null,
        /// What the attribute must fit: numbers and booleans are compared as text.
        pub regex: Option<Regex> = None,
        /// A condition, such as `resource.attributes["env"] == "test"`; or on metadata of the request, such as
        /// `request["x-scope-orgid"] == "team-a"`, for which the receiver needs `include_metadata: true`.
        pub condition: String = String::new(),
        /// The same in the form of a statement: `route() where` and the condition.
        pub statement: String = String::new(),
        /// What the condition is about: each resource, or each span, metric, data point or log record; or the
        /// request as a whole (`request`, `otelcol`). Read from the condition's paths if it is not given, and
        /// `resource` if they do not say.
        pub context: Option<RouteContext> = None,
        /// Whether telemetry that passes the test is gone for the routes behind this one.
        pub action: RouteAction = RouteAction::Move,
        /// Pipelines that have this connector among their receivers; each gets everything. Required.
        pub pipelines: Vec<String> = Vec::new(),
    }
    validate = RouteConfig::check;
}

config_enum! {
    /// Whether telemetry is gone for the routes behind.
    pub enum RouteAction {
        /// It is.
        Move = "move",
        /// It is not.
        Copy = "copy",
    }
}

config_enum! {
    /// What a condition is about.
    pub enum RouteContext {
        /// Each resource.
        Resource = "resource",
        /// Each span.
        Span = "span",
        /// Each metric.
        Metric = "metric",
        /// Each data point.
        DataPoint = "datapoint",
        /// Each log record.
        Log = "log",
        /// The request's metadata, by `request["key"]`.
        Request = "request",
        /// What is known of the client, by `otelcol.client.…`.
        Client = "otelcol",
    }
}

/// A route's test, read from its keys.
pub(super) enum TestConfig<'a> {
    Tenant(&'a [String]),
    Attribute {
        name: &'a str,
        equals: Option<&'a Any>,
        fits: Option<&'a Regex>,
    },
    Request(RequestCondition),
    Always,
    /// The condition, without `route() where`.
    Condition {
        text: &'a str,
        context: Option<RouteContext>,
    },
}

/// What is wrong with a route.
#[derive(Debug)]
pub(super) struct Mistake {
    /// At which key; empty if it has none.
    key: &'static str,
    /// Where in its text.
    offset: usize,
    pub(super) message: String,
    hint: Option<String>,
}

#[allow(clippy::derivable_impls, reason = "the macro derives no default")]
impl Default for RouteContext {
    fn default() -> Self {
        RouteContext::Resource
    }
}

impl RoutingConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.table.is_empty() {
            cx.error_hint(
                node.pos_of("table"),
                "invalid routing table: the routing table is empty",
                "add a route, such as {tenant: team-a, pipelines: [logs/team-a]}",
            );
        }
    }
}

impl ComponentConfig for RoutingConfig {
    fn pipeline_refs(&self) -> Vec<(String, String)> {
        let routes = self.table.iter().enumerate();
        let routes = routes.flat_map(|(i, route)| places(format!("table::{i}::pipelines"), &route.pipelines));
        routes.chain(places("default_pipelines".to_owned(), &self.default_pipelines)).collect()
    }
}

impl RouteConfig {
    fn check(&self, node: &Node, cx: &mut Cx) {
        if self.pipelines.is_empty() {
            cx.error_hint(
                node.pos_of("pipelines"),
                "invalid route: no pipelines defined",
                "name pipelines that have the connector among their receivers",
            );
        }
        let found = match self.test() {
            Err(mistake) => Some(mistake),
            Ok(TestConfig::Condition { text, context }) => Signal::ALL
                .into_iter()
                .filter(|signal| self.pipelines.iter().any(|id| type_of(id.trim()) == signal.name()))
                .find_map(|signal| self.compile(text, context, signal, ErrorMode::Ignore).err()),
            Ok(_) => None,
        };
        if let Some(Mistake { key, offset, message, hint }) = found {
            let mut pos = node.pos_of(key);
            if offset > 0 {
                pos = cx.pos_inside(pos, self.text().1, offset);
            }
            match hint {
                Some(hint) => cx.error_hint(pos, message, hint),
                None => cx.error(pos, message),
            }
        }
    }

    /// The key and the text of the condition or statement.
    fn text(&self) -> (&'static str, &str) {
        if self.statement.is_empty() {
            ("condition", &self.condition)
        } else {
            ("statement", &self.statement)
        }
    }

    /// A condition of this route for a signal.
    ///
    /// # Errors
    /// What is wrong with its text, or not there in this signal.
    pub(super) fn compile(
        &self,
        condition: &str,
        context: Option<RouteContext>,
        signal: Signal,
        error_mode: ErrorMode,
    ) -> Result<ConditionGroup, Mistake> {
        let parse = |context| {
            ConditionGroup::parse(context, &[condition], signal, error_mode)
                .map_err(|GroupError { error, .. }| error)
        };
        let parsed = match context.map(RouteContext::of_language) {
            // What says of what it is about is about that, and everything else about resources.
            None => parse(None).or_else(|first| {
                parse(Some(Context::Resource)).map_err(|second| {
                    let near = second.hint.as_ref().is_some_and(|hint| hint.starts_with("did you mean"));
                    let second_says_more =
                        second.offset > first.offset || (near && second.offset == first.offset);
                    if second_says_more { second } else { first }
                })
            }),
            Some(None) => parse(None).and_then(|group| match group.context() {
                Context::Resource => Ok(group),
                other => Err(ParseError {
                    offset: 0,
                    message: format!("the condition is about more than the client: {}", other.name()),
                    hint: Some(format!("write context: {}", other.name())),
                }),
            }),
            Some(context) => parse(context),
        };
        let parsed = parsed.and_then(|group| match group.context() {
            Context::SpanEvent => Err(ParseError {
                offset: 0,
                message: "spans are routed with all their events, which cannot be asked".to_owned(),
                hint: Some("ask the span, its scope or its resource".to_owned()),
            }),
            _ => Ok(group),
        });
        parsed.map_err(|ParseError { offset, message, hint }| {
            let (key, text) = self.text();
            // The condition is a part of the text.
            let start = (condition.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
            Mistake { key, offset: start + offset, message, hint }
        })
    }

    /// The route's test.
    ///
    /// # Errors
    /// What is wrong with its keys.
    pub(super) fn test(&self) -> Result<TestConfig<'_>, Mistake> {
        const TESTS: &str = "write one of tenant, attribute, condition and statement";
        let error = |key, message: &str, hint: &str| Err(Mistake::at(key, message, hint));
        let given: Vec<&'static str> = [
            ("tenant", !self.tenant.is_empty()),
            ("attribute", !self.attribute.is_empty()),
            ("condition", !self.condition.is_empty()),
            ("statement", !self.statement.is_empty()),
        ]
        .into_iter()
        .filter_map(|(key, given)| given.then_some(key))
        .collect();
        let one = match given.as_slice() {
            [one] => *one,
            [] => return error("", "invalid route: no condition or statement provided", TESTS),
            [first, second, ..] => {
                let message = format!("invalid route: both {first} and {second} provided");
                return error(second, &message, TESTS);
            }
        };
        let (value, regex) = (self.value != Any::Null, self.regex.is_some());
        if one != "attribute" && (value || regex) {
            let key = if value { "value" } else { "regex" };
            return error(key, &format!("\"{key}\" goes with \"attribute\" only"), "take it out");
        }
        if self.context.is_some() && matches!(one, "tenant" | "attribute") {
            return error("context", "\"context\" goes with \"condition\" only", "take it out");
        }
        match one {
            "tenant" if self.tenant.iter().any(String::is_empty) => {
                error("tenant", "the name of a tenant must not be empty", "take it out")
            }
            "tenant" => Ok(TestConfig::Tenant(&self.tenant)),
            "attribute" => {
                let bare = matches!(self.attribute.as_str(), "resource." | "scope.");
                if bare {
                    return error("attribute", "the name of the attribute is missing", "write resource.NAME");
                }
                if value == regex {
                    let message =
                        if value { "both value and regex provided" } else { "value or regex is missing" };
                    return error("attribute", message, "write what the attribute must be, or a regex");
                }
                if matches!(self.value, Any::List(_) | Any::Map(_)) {
                    return error(
                        "value",
                        "only a string, number or boolean can be compared",
                        "use condition",
                    );
                }
                let equals = value.then_some(&self.value);
                Ok(TestConfig::Attribute { name: &self.attribute, equals, fits: self.regex.as_ref() })
            }
            _ => self.condition(one),
        }
    }

    fn condition(&self, key: &'static str) -> Result<TestConfig<'_>, Mistake> {
        let text = match key {
            "statement" => {
                let wrong = "a statement of this connector is route(), perhaps with a where";
                let hint = "write route() where and a condition";
                match route_where(&self.statement).ok_or_else(|| Mistake::at(key, wrong, hint))? {
                    "" => return Ok(TestConfig::Always),
                    condition => condition,
                }
            }
            _ => self.condition.trim(),
        };
        if text.is_empty() {
            return Err(Mistake::at(key, "the condition is empty", "write it, or take the route out"));
        }
        match self.context {
            None if text.starts_with("request[") => {}
            Some(RouteContext::Request) => {}
            context => return Ok(TestConfig::Condition { text, context }),
        }
        let hint = "write request[\"name\"] == \"value\", or !=";
        RequestCondition::parse(text)
            .map(TestConfig::Request)
            .map_err(|message| Mistake::at(key, &message, hint))
    }
}

impl Mistake {
    fn at(key: &'static str, message: &str, hint: &str) -> Self {
        Mistake { key, offset: 0, message: message.to_owned(), hint: Some(hint.to_owned()) }
    }
}

impl RouteContext {
    /// The language's context; `None` for those that it does not have.
    fn of_language(self) -> Option<Context> {
        match self {
            RouteContext::Resource => Some(Context::Resource),
            RouteContext::Span => Some(Context::Span),
            RouteContext::Metric => Some(Context::Metric),
            RouteContext::DataPoint => Some(Context::DataPoint),
            RouteContext::Log => Some(Context::Log),
            RouteContext::Request | RouteContext::Client => None,
        }
    }
}

/// The ids in a list with their places.
fn places(path: String, ids: &[String]) -> impl Iterator<Item = (String, String)> {
    ids.iter().enumerate().map(move |(i, id)| (format!("{path}::{i}"), id.trim().to_owned()))
}

/// The condition of `route() where condition`; empty for `route()` alone.
fn route_where(statement: &str) -> Option<&str> {
    let rest = statement.trim().strip_prefix("route")?.trim_start().strip_prefix('(')?;
    let rest = rest.trim_start().strip_prefix(')')?.trim();
    if rest.is_empty() {
        return Some(rest);
    }
    let condition = rest.strip_prefix("where")?;
    (condition.starts_with([' ', '\t', '\n', '(']) && !condition.trim().is_empty()).then(|| condition.trim())
}

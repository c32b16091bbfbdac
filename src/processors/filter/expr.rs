//! The expressions of `match_type: expr`: what a metric is called and which labels a data point has.
//!
//! `MetricName`, `MetricType`, `HasLabel("key")`, `Label("key")`, texts, `==`, `!=`, `&&`, `||`, `!`, `true`, `false`
//! and parentheses; `and`, `or` and `not` are the same as the signs. A label that is absent or no string is the empty
//! text.

use crate::config::nearest;

/// How deep an expression may nest.
const MAX_DEPTH: usize = 64;

/// A compiled expression that holds or not.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    Is(bool),
    HasLabel(Box<str>),
    Equal(Text, Text),
    Same(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
}

/// A part of an expression that is a text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Text {
    MetricName,
    MetricType,
    Label(Box<str>),
    Is(Box<str>),
}

/// What is wrong with an expression, and where.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Wrong {
    /// Offset in bytes.
    pub(super) at: usize,
    pub(super) why: String,
    pub(super) hint: Option<String>,
}

/// A metric and one of its data points; `label` finds the text of a label, or that it is there without one.
pub(super) struct Point<'a, F> {
    pub(super) name: &'a [u8],
    pub(super) kind: &'static str,
    pub(super) label: F,
}

/// What a label is: absent, or there with its text.
pub(super) type Label<'a> = Option<&'a [u8]>;

impl Expr {
    /// Compiles an expression.
    pub(super) fn parse(text: &str) -> Result<Self, Wrong> {
        let mut parser = Parser { text, at: 0, depth: 0 };
        parser.space();
        if parser.rest().is_empty() {
            return Err(wrong(0, "the expression is empty", None));
        }
        let whole = parser.either()?;
        if !parser.rest().is_empty() {
            return Err(parser.unexpected());
        }
        whole.holds()
    }

    /// Whether it holds for a data point.
    pub(super) fn eval<'a, F: Fn(&str) -> Label<'a>>(&self, point: &Point<'a, F>) -> bool {
        match self {
            Expr::Is(value) => *value,
            Expr::HasLabel(key) => (point.label)(key).is_some(),
            Expr::Equal(left, right) => left.get(point) == right.get(point),
            Expr::Same(left, right) => left.eval(point) == right.eval(point),
            Expr::Not(inner) => !inner.eval(point),
            Expr::And(left, right) => left.eval(point) && right.eval(point),
            Expr::Or(left, right) => left.eval(point) || right.eval(point),
        }
    }
}

impl Text {
    fn get<'t, 'a: 't, F: Fn(&str) -> Label<'a>>(&'t self, point: &Point<'a, F>) -> &'t [u8] {
        match self {
            Text::MetricName => point.name,
            Text::MetricType => point.kind.as_bytes(),
            Text::Label(key) => (point.label)(key).unwrap_or_default(),
            Text::Is(text) => text.as_bytes(),
        }
    }
}

/// A part that has been read: something that holds or not, or a text.
struct Part {
    at: usize,
    is: Is,
}

enum Is {
    Truth(Expr),
    Text(Text),
}

struct Parser<'t> {
    text: &'t str,
    at: usize,
    depth: usize,
}

impl Part {
    fn holds(self) -> Result<Expr, Wrong> {
        match self.is {
            Is::Truth(expr) => Ok(expr),
            Is::Text(_) => {
                Err(wrong(self.at, "this is a text; it cannot hold or not", Some("compare it with == or !=")))
            }
        }
    }
}

impl<'t> Parser<'t> {
    fn either(&mut self) -> Result<Part, Wrong> {
        let mut left = self.both()?;
        while self.operator("||", "or") {
            let (at, l) = (left.at, left.holds()?);
            let right = self.both()?.holds()?;
            left = truth(at, Expr::Or(Box::new(l), Box::new(right)));
        }
        Ok(left)
    }

    fn both(&mut self) -> Result<Part, Wrong> {
        let mut left = self.comparison()?;
        while self.operator("&&", "and") {
            let (at, l) = (left.at, left.holds()?);
            let right = self.comparison()?.holds()?;
            left = truth(at, Expr::And(Box::new(l), Box::new(right)));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Result<Part, Wrong> {
        let left = self.one()?;
        let equal = match () {
            () if self.sign("==") => true,
            () if self.sign("!=") => false,
            () => return Ok(left),
        };
        let right = self.one()?;
        let same = match (left.is, right.is) {
            (Is::Text(l), Is::Text(r)) => Expr::Equal(l, r),
            (Is::Truth(l), Is::Truth(r)) => Expr::Same(Box::new(l), Box::new(r)),
            _ => return Err(wrong(right.at, "a text cannot be compared with true or false", None)),
        };
        Ok(truth(left.at, if equal { same } else { Expr::Not(Box::new(same)) }))
    }

    fn one(&mut self) -> Result<Part, Wrong> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(wrong(self.at, "the expression nests too deep", None));
        }
        let part = self.one_inside();
        self.depth -= 1;
        part
    }

    fn one_inside(&mut self) -> Result<Part, Wrong> {
        let at = self.at;
        if (self.rest().starts_with('!') && self.sign("!")) || self.word_if("not") {
            let inner = self.one()?.holds()?;
            return Ok(truth(at, Expr::Not(Box::new(inner))));
        }
        if self.sign("(") {
            let inner = self.either()?;
            self.expect(")")?;
            return Ok(inner);
        }
        if self.rest().starts_with(['"', '\'', '`']) {
            let text = self.quoted()?;
            return Ok(Part { at, is: Is::Text(Text::Is(text.into())) });
        }
        let word = self.word();
        let is = match word {
            "MetricName" => Is::Text(Text::MetricName),
            "MetricType" => Is::Text(Text::MetricType),
            "HasLabel" => Is::Truth(Expr::HasLabel(self.argument()?)),
            "Label" => Is::Text(Text::Label(self.argument()?)),
            "true" => Is::Truth(Expr::Is(true)),
            "false" => Is::Truth(Expr::Is(false)),
            "" => return Err(self.unexpected()),
            other => {
                const KNOWN: [&str; 4] = ["MetricName", "MetricType", "HasLabel", "Label"];
                let hint = match nearest(other, &KNOWN) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("there are {}", KNOWN.join(", ")),
                };
                return Err(wrong(at, &format!("\"{other}\" is not supported"), Some(&hint)));
            }
        };
        Ok(Part { at, is })
    }

    /// The one argument of a function: a text in parentheses.
    fn argument(&mut self) -> Result<Box<str>, Wrong> {
        self.expect("(")?;
        if !self.rest().starts_with(['"', '\'', '`']) {
            return Err(wrong(self.at, "a label is named by a text", Some("put it in quotes")));
        }
        let text = self.quoted()?;
        self.expect(")")?;
        Ok(text.into())
    }

    fn quoted(&mut self) -> Result<String, Wrong> {
        let start = self.at;
        let mut chars = self.rest().char_indices();
        let quote = chars.next().map(|(_, c)| c);
        let mut out = String::new();
        while let Some((i, c)) = chars.next() {
            match c {
                c if Some(c) == quote => {
                    self.at = start + i + c.len_utf8();
                    self.space();
                    return Ok(out);
                }
                '\\' if quote != Some('`') => match chars.next() {
                    Some((_, 'n')) => out.push('\n'),
                    Some((_, 't')) => out.push('\t'),
                    Some((_, 'r')) => out.push('\r'),
                    Some((_, c @ ('\\' | '"' | '\''))) => out.push(c),
                    Some(_) => {
                        let hint = r#"there are \n, \t, \r, \\, \" and \'"#;
                        return Err(wrong(start + i, "no such escape", Some(hint)));
                    }
                    None => break,
                },
                c => out.push(c),
            }
        }
        Err(wrong(start, "the text is never closed", None))
    }

    fn operator(&mut self, sign: &str, word: &str) -> bool {
        self.sign(sign) || self.word_if(word)
    }

    fn sign(&mut self, sign: &str) -> bool {
        let is = self.rest().starts_with(sign);
        if is {
            self.at += sign.len();
            self.space();
        }
        is
    }

    fn word_if(&mut self, word: &str) -> bool {
        let is = self.peek_word() == word;
        if is {
            self.word();
        }
        is
    }

    fn word(&mut self) -> &'t str {
        let word = self.peek_word();
        self.at += word.len();
        self.space();
        word
    }

    fn peek_word(&self) -> &'t str {
        let rest = self.rest();
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }

    fn expect(&mut self, sign: &str) -> Result<(), Wrong> {
        if self.sign(sign) {
            return Ok(());
        }
        Err(wrong(self.at, &format!("expected \"{sign}\""), None))
    }

    fn unexpected(&self) -> Wrong {
        let word = self.peek_word();
        let end = self.rest().char_indices().nth(1).map_or(self.rest().len(), |(i, _)| i);
        let shown = if word.is_empty() { self.rest().get(..end).unwrap_or_default() } else { word };
        match shown {
            "" => wrong(self.at, "the expression ends too early", None),
            shown => wrong(
                self.at,
                &format!("\"{shown}\" is not supported here"),
                Some("there are ==, !=, &&, || and !"),
            ),
        }
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }
}

fn truth(at: usize, expr: Expr) -> Part {
    Part { at, is: Is::Truth(expr) }
}

fn wrong(at: usize, why: &str, hint: Option<&str>) -> Wrong {
    Wrong { at, why: why.to_owned(), hint: hint.map(str::to_owned) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(key: &str) -> Label<'static> {
        match key {
            "code" => Some(b"200"),
            "number" => Some(b""),
            "it's" => Some(b"a\"b"),
            _ => None,
        }
    }

    #[test]
    fn expressions_hold_or_not() {
        for (text, want) in [
            (r#"MetricName == "requests""#, true),
            (r#"MetricName != 'requests'"#, false),
            (r#"MetricName == `errors` || HasLabel("code")"#, true),
            (r#"MetricName == "errors" or HasLabel("code") and false"#, false),
            (r#"HasLabel("code") && Label("code") == "200""#, true),
            (r#"HasLabel("nothing")"#, false),
            (r#"Label("nothing") == """#, true),
            (r#"HasLabel("number") and Label("number") == """#, true),
            (r#"!HasLabel("code")"#, false),
            (r#"not HasLabel("code") == false"#, true),
            (r#"!(HasLabel("code") && MetricType == "Sum")"#, false),
            (r#"( ( true ) )"#, true),
            (r#"true || false && false"#, true),
            (r#"Label("it's") == "a\"b""#, true),
            (r#"Label('it\'s') == 'a"b'"#, true),
            (r#"Label("code") == Label("code")"#, true),
            (r#"HasLabel("code") != HasLabel("nothing")"#, true),
            (r#"!!true"#, true),
            (r#""MetricName" == MetricName"#, false),
        ] {
            let expr = Expr::parse(text).unwrap_or_else(|why| panic!("{text}: {why:?}"));
            let point = Point { name: b"requests".as_slice(), kind: "Sum", label };
            assert_eq!(expr.eval(&point), want, "{text}");
        }
    }

    #[test]
    fn mistakes_are_pointed_at() {
        for (text, at, why) in [
            ("", 0, "the expression is empty"),
            ("   ", 0, "the expression is empty"),
            ("MetricName", 0, "this is a text; it cannot hold or not"),
            ("MetricNmae == \"a\"", 0, "\"MetricNmae\" is not supported"),
            ("MetricName matches \"a.*\"", 11, "\"matches\" is not supported here"),
            ("MetricName in [\"a\"]", 11, "\"in\" is not supported here"),
            ("MetricName ==", 13, "the expression ends too early"),
            ("MetricName == ü", 14, "\"ü\" is not supported here"),
            ("MetricName == true", 14, "a text cannot be compared with true or false"),
            ("HasLabel(code)", 9, "a label is named by a text"),
            ("HasLabel(\"code\"", 15, "expected \")\""),
            ("HasLabel \"code\"", 9, "expected \"(\""),
            ("Label(\"code) == 1", 6, "the text is never closed"),
            ("Label(\"a\\q\") == \"\"", 8, "no such escape"),
            ("(true", 5, "expected \")\""),
            ("true)", 4, "\")\" is not supported here"),
            ("Label(\"code\") > \"4\"", 14, "\">\" is not supported here"),
            ("true == true == true", 13, "\"=\" is not supported here"),
        ] {
            let wrong = Expr::parse(text).expect_err(text);
            assert_eq!((wrong.at, wrong.why.as_str()), (at, why), "{text}");
        }
        let hint = Expr::parse("MetricNmae == \"a\"").unwrap_err().hint;
        assert_eq!(hint.as_deref(), Some("did you mean \"MetricName\"?"));
        assert!(Expr::parse(&"!".repeat(10_000)).unwrap_err().why.contains("too deep"));
        assert!(Expr::parse(&"(".repeat(10_000)).unwrap_err().why.contains("too deep"));
    }
}

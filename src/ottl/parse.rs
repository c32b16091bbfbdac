//! Tokens to [`Node`]s, by recursive descent.
//!
//! Promises: any text ends in a tree or in an error with its offset; nesting is bounded by [`DEPTH`], so neither this
//! nor anything that walks the tree later can run out of stack.

use super::ParseError;
use super::ast::{Argument, CallNode, CompareOp, Key, MathOp, Node, NodeKind, PathNode, StatementNode};
use super::lex::{Token, TokenKind, tokens};

/// How deep expressions may nest, chains of operators included.
const DEPTH: usize = 64;

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
}

/// A whole condition.
pub(super) fn condition(text: &str) -> Result<Node, ParseError> {
    let mut parser = Parser::new(text)?;
    if parser.peek() == &TokenKind::End {
        return Err(ParseError::new(0, "condition cannot be empty"));
    }
    let node = parser.or()?;
    parser.end()?;
    Ok(node)
}

/// A whole statement.
pub(super) fn statement(text: &str) -> Result<StatementNode, ParseError> {
    let mut parser = Parser::new(text)?;
    let at = parser.at();
    let name = match parser.peek() {
        TokenKind::End => return Err(ParseError::new(0, "statement cannot be empty")),
        TokenKind::Word(word) => word.clone(),
        _ => return Err(ParseError::new(at, "a statement begins with the name of an editor").hint(EDITOR)),
    };
    parser.next += 1;
    if parser.peek() != &TokenKind::Sign("(") {
        return Err(parser.expected("\"(\" after the editor's name").hint(EDITOR));
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        let error =
            ParseError::new(at, format!("{name} is a converter: it gives a value and changes nothing"));
        return Err(error.hint(EDITOR));
    }
    let args = parser.arguments()?;
    let editor = CallNode { name, args, keys: Vec::new() };
    let filter = match parser.word("where") {
        true => Some(parser.or()?),
        false => None,
    };
    parser.end()?;
    Ok(StatementNode { at, editor, filter })
}

const EDITOR: &str = "write it as in: set(attributes[\"key\"], \"value\") where name == \"x\"";

impl Parser {
    fn new(text: &str) -> Result<Self, ParseError> {
        Ok(Parser { tokens: tokens(text)?, next: 0, depth: 0 })
    }

    fn peek(&self) -> &TokenKind {
        self.tokens.get(self.next).map_or(&TokenKind::End, |token| &token.kind)
    }

    fn peek_second(&self) -> &TokenKind {
        self.tokens.get(self.next + 1).map_or(&TokenKind::End, |token| &token.kind)
    }

    /// Where the next token begins.
    fn at(&self) -> usize {
        self.tokens.get(self.next).or(self.tokens.last()).map_or(0, |token| token.at)
    }

    fn sign(&mut self, sign: &str) -> bool {
        let found = matches!(self.peek(), TokenKind::Sign(s) if *s == sign);
        self.next += usize::from(found);
        found
    }

    fn word(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), TokenKind::Word(w) if w == word);
        self.next += usize::from(found);
        found
    }

    fn expect(&mut self, sign: &str) -> Result<(), ParseError> {
        if self.sign(sign) { Ok(()) } else { Err(self.expected(&format!("{sign:?}"))) }
    }

    /// A comma, where the bracket that closes could stand as well.
    fn comma(&mut self, close: &str) -> Result<(), ParseError> {
        if self.sign(",") { Ok(()) } else { Err(self.expected(&format!("\",\" or {close:?}"))) }
    }

    fn expected(&self, what: &str) -> ParseError {
        let found = match self.peek() {
            TokenKind::Word(word) => format!("\"{word}\""),
            TokenKind::Int(_) | TokenKind::Float(_) => "a number".to_owned(),
            TokenKind::Str(_) => "a string".to_owned(),
            TokenKind::Bytes(_) => "bytes".to_owned(),
            TokenKind::Sign(sign) => format!("\"{sign}\""),
            TokenKind::End => "the end".to_owned(),
        };
        ParseError::new(self.at(), format!("expected {what}, found {found}"))
    }

    fn end(&self) -> Result<(), ParseError> {
        match self.peek() {
            TokenKind::End => Ok(()),
            TokenKind::Sign("=") => Err(self.expected("the end").hint("compare with \"==\"")),
            _ => Err(self.expected("an operator or the end")),
        }
    }

    /// One level deeper.
    fn nested<T>(&mut self, f: impl FnOnce(&mut Self) -> Result<T, ParseError>) -> Result<T, ParseError> {
        if self.depth >= DEPTH {
            return Err(ParseError::new(self.at(), format!("nested more than {DEPTH} levels deep")));
        }
        self.depth += 1;
        let result = f(self);
        self.depth -= 1;
        result
    }

    fn or(&mut self) -> Result<Node, ParseError> {
        self.chain("or", Self::and, NodeKind::Or)
    }

    fn and(&mut self) -> Result<Node, ParseError> {
        self.chain("and", Self::not, NodeKind::And)
    }

    fn chain(
        &mut self,
        word: &str,
        part: fn(&mut Self) -> Result<Node, ParseError>,
        whole: fn(Vec<Node>) -> NodeKind,
    ) -> Result<Node, ParseError> {
        let first = self.nested(part)?;
        if !matches!(self.peek(), TokenKind::Word(w) if w == word) {
            return Ok(first);
        }
        let at = first.at;
        let mut parts = vec![first];
        while self.word(word) {
            parts.push(self.nested(part)?);
        }
        Ok(Node { at, kind: whole(parts) })
    }

    fn not(&mut self) -> Result<Node, ParseError> {
        let at = self.at();
        if self.word("not") {
            let inner = self.nested(Self::not)?;
            return Ok(Node { at, kind: NodeKind::Not(Box::new(inner)) });
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Node, ParseError> {
        let left = self.sum()?;
        let op = match self.peek() {
            TokenKind::Sign("==") => CompareOp::Eq,
            TokenKind::Sign("!=") => CompareOp::Ne,
            TokenKind::Sign("<") => CompareOp::Lt,
            TokenKind::Sign("<=") => CompareOp::Le,
            TokenKind::Sign(">") => CompareOp::Gt,
            TokenKind::Sign(">=") => CompareOp::Ge,
            _ => return Ok(left),
        };
        self.next += 1;
        let right = self.sum()?;
        if matches!(self.peek(), TokenKind::Sign("==" | "!=" | "<" | "<=" | ">" | ">=")) {
            let error = ParseError::new(self.at(), "comparisons do not chain");
            return Err(error.hint("join two comparisons with \"and\""));
        }
        Ok(Node { at: left.at, kind: NodeKind::Compare(op, Box::new(left), Box::new(right)) })
    }

    fn sum(&mut self) -> Result<Node, ParseError> {
        self.math(&[("+", MathOp::Add), ("-", MathOp::Sub)], Self::product)
    }

    fn product(&mut self) -> Result<Node, ParseError> {
        self.math(&[("*", MathOp::Mul), ("/", MathOp::Div)], Self::unary)
    }

    fn math(
        &mut self,
        signs: &[(&str, MathOp)],
        part: fn(&mut Self) -> Result<Node, ParseError>,
    ) -> Result<Node, ParseError> {
        let mut left = part(self)?;
        let mut links = 0;
        while let Some((_, op)) = signs.iter().find(|(sign, _)| self.sign(sign)) {
            // The tree leans to the left: each link is a level.
            links += 1;
            if links > DEPTH {
                return Err(ParseError::new(self.at(), format!("more than {DEPTH} operators in a row")));
            }
            let right = part(self)?;
            left = Node { at: left.at, kind: NodeKind::Math(*op, Box::new(left), Box::new(right)) };
        }
        Ok(left)
    }

    fn unary(&mut self) -> Result<Node, ParseError> {
        let at = self.at();
        if self.sign("-") {
            // The most negative integer has no positive counterpart.
            if self.peek() == &TokenKind::Int(1 << 63) {
                self.next += 1;
                return Ok(Node { at, kind: NodeKind::Int(i64::MIN) });
            }
            let inner = self.nested(Self::unary)?;
            let kind = match inner.kind {
                NodeKind::Int(i) if i != i64::MIN => NodeKind::Int(-i),
                NodeKind::Float(d) => NodeKind::Float(-d),
                _ => NodeKind::Neg(Box::new(inner)),
            };
            return Ok(Node { at, kind });
        }
        if self.sign("+") {
            return self.nested(Self::unary);
        }
        self.nested(Self::primary)
    }

    fn primary(&mut self) -> Result<Node, ParseError> {
        let at = self.at();
        let kind = match self.peek().clone() {
            TokenKind::Int(i) => {
                let value = i64::try_from(i);
                NodeKind::Int(value.map_err(|_| ParseError::new(at, format!("{i} is too large a number")))?)
            }
            TokenKind::Float(d) => NodeKind::Float(d),
            TokenKind::Str(s) => NodeKind::Str(s),
            TokenKind::Bytes(b) => NodeKind::Bytes(b),
            TokenKind::Sign("(") => {
                self.next += 1;
                let inner = self.or()?;
                self.expect(")")?;
                return Ok(Node { at, kind: inner.kind });
            }
            TokenKind::Sign("[") => return Ok(Node { at, kind: self.list()? }),
            TokenKind::Sign("{") => return Ok(Node { at, kind: self.map()? }),
            TokenKind::Word(word) => return Ok(Node { at, kind: self.named(word)? }),
            _ => return Err(self.expected("a value")),
        };
        self.next += 1;
        Ok(Node { at, kind })
    }

    /// What begins with a word: a literal, an enum, a path or a call.
    fn named(&mut self, word: String) -> Result<NodeKind, ParseError> {
        let literal = match word.as_str() {
            "true" => Some(NodeKind::Bool(true)),
            "false" => Some(NodeKind::Bool(false)),
            "nil" => Some(NodeKind::Nil),
            "and" | "or" | "not" | "where" => return Err(self.expected("a value")),
            _ => None,
        };
        if let Some(literal) = literal {
            self.next += 1;
            return Ok(literal);
        }
        if self.peek_second() == &TokenKind::Sign("(") {
            let at = self.at();
            if !word.starts_with(|c: char| c.is_ascii_uppercase()) {
                let error = ParseError::new(at, format!("{word} is no converter and gives no value"));
                return Err(error.hint("converters begin with an upper-case letter"));
            }
            self.next += 1;
            let args = self.arguments()?;
            let keys = self.keys()?;
            return Ok(NodeKind::Call(CallNode { name: word, args, keys }));
        }
        if word.starts_with(|c: char| c.is_ascii_uppercase()) {
            self.next += 1;
            return Ok(NodeKind::Name(word));
        }
        self.path().map(NodeKind::Path)
    }

    fn path(&mut self) -> Result<PathNode, ParseError> {
        let mut words = Vec::new();
        loop {
            let at = self.at();
            let TokenKind::Word(word) = self.peek().clone() else {
                return Err(self.expected("a name after the dot"));
            };
            self.next += 1;
            words.push((word, at));
            if !self.sign(".") {
                break;
            }
        }
        let keys = self.keys()?;
        if !keys.is_empty() && self.peek() == &TokenKind::Sign(".") {
            let error = ParseError::new(self.at(), "nothing follows the brackets of a path");
            return Err(error.hint("write [\"key\"] to look into a map"));
        }
        Ok(PathNode { words, keys })
    }

    fn keys(&mut self) -> Result<Vec<(Key, usize)>, ParseError> {
        let mut keys = Vec::new();
        while self.sign("[") {
            let at = self.at();
            let key = match self.peek().clone() {
                TokenKind::Str(s) => Key::Str(s.into_bytes().into()),
                TokenKind::Int(i) => {
                    Key::Index(usize::try_from(i).map_err(|_| ParseError::new(at, "the index is too large"))?)
                }
                TokenKind::Word(_) => {
                    let error = ParseError::new(at, "a key that is computed is not supported");
                    return Err(error.hint("write the key as a string, or an index as a number"));
                }
                _ => return Err(self.expected("a key in double quotes or an index")),
            };
            self.next += 1;
            self.expect("]")?;
            keys.push((key, at));
            if keys.len() > DEPTH {
                return Err(ParseError::new(at, format!("more than {DEPTH} keys in a row")));
            }
        }
        Ok(keys)
    }

    fn list(&mut self) -> Result<NodeKind, ParseError> {
        self.next += 1;
        let mut items = Vec::new();
        while !self.sign("]") {
            if !items.is_empty() {
                self.comma("]")?;
            }
            items.push(self.nested(Self::or)?);
        }
        Ok(NodeKind::List(items))
    }

    fn map(&mut self) -> Result<NodeKind, ParseError> {
        self.next += 1;
        let mut entries = Vec::new();
        while !self.sign("}") {
            if !entries.is_empty() {
                self.comma("}")?;
            }
            let TokenKind::Str(key) = self.peek().clone() else {
                return Err(self.expected("a key in double quotes"));
            };
            self.next += 1;
            self.expect(":")?;
            entries.push((key, self.nested(Self::or)?));
        }
        Ok(NodeKind::Map(entries))
    }

    fn arguments(&mut self) -> Result<Vec<Argument>, ParseError> {
        self.expect("(")?;
        let mut args: Vec<Argument> = Vec::new();
        while !self.sign(")") {
            if !args.is_empty() {
                self.comma(")")?;
            }
            let at = self.at();
            let name = match (self.peek().clone(), self.peek_second()) {
                (TokenKind::Word(name), TokenKind::Sign("=")) => {
                    self.next += 2;
                    Some(name)
                }
                _ => None,
            };
            if name.is_none() && args.iter().any(|arg| arg.name.is_some()) {
                let error = ParseError::new(at, "an argument without a name follows one with a name");
                return Err(error.hint("put the arguments without names first"));
            }
            args.push(Argument { name, value: self.nested(Self::or)? });
        }
        Ok(args)
    }
}

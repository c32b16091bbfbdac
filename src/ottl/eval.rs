//! Compiled expressions and how they are evaluated.
//!
//! Promises: evaluating ends, in time linear in the bytes it looks at; nesting is bounded by the parser.

use bumpalo::Bump;

use super::ast::{CompareOp, Key, MathOp};
use super::functions::Call;
use super::paths::Path;
use super::value::{Buf, Fault, Kept, Ty, Val, compare, put_entry, put_item};
use crate::processors::edit::Message;

/// What there is to evaluate on.
#[derive(Clone, Copy)]
pub(super) struct Env<'v, 'm> {
    pub(super) message: &'v Message<'m>,
    pub(super) arena: &'v Bump,
    /// What was captured for this condition or statement.
    pub(super) kept: &'v [Kept],
}

/// An expression that gives a value.
#[derive(Debug, Clone)]
pub(super) enum Expr {
    Literal(Kept),
    /// Of the message itself.
    Path(Path, Ty),
    /// Of a message above, or of the client.
    Kept(usize, Ty),
    List(Box<[Expr]>),
    Map(Box<[(Box<[u8]>, Expr)]>),
    Neg(Box<Expr>),
    Math(MathOp, Box<Expr>, Box<Expr>),
    Call(Box<Call>),
    Index(Box<Expr>, Box<[Key]>),
}

/// An expression that is true or false.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Const(bool),
    Compare(CompareOp, Expr, Expr),
    /// A converter that gives a boolean.
    Value(Expr),
    Not(Box<Test>),
    And(Box<[Test]>),
    Or(Box<[Test]>),
}

impl Expr {
    /// What is known of its type.
    pub(super) fn ty(&self) -> Ty {
        match self {
            Expr::Literal(kept) => kept.get().ty(),
            Expr::Path(_, ty) | Expr::Kept(_, ty) => *ty,
            Expr::List(_) => Ty::List,
            Expr::Map(_) => Ty::Map,
            Expr::Neg(inner) => inner.ty(),
            Expr::Math(_, left, right) => match (left.ty(), right.ty()) {
                (a, b) if a == b && a != Ty::Time => a,
                _ => Ty::Any,
            },
            Expr::Call(call) => call.ty(),
            Expr::Index(..) => Ty::Any,
        }
    }

    /// Its value, if it is known already.
    pub(super) fn literal(&self) -> Option<Val<'_>> {
        match self {
            Expr::Literal(kept) => Some(kept.get()),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn eval<'v>(&'v self, env: &Env<'v, '_>) -> Result<Val<'v>, Fault> {
        match self {
            Expr::Literal(kept) => Ok(kept.get()),
            Expr::Path(path, _) => path.read(env),
            Expr::Kept(at, _) => env.kept.get(*at).map_or(Ok(Val::Nil), Kept::value),
            Expr::List(items) => {
                let mut list = Buf::new_in(env.arena);
                for item in items {
                    put_item(&mut list, item.eval(env)?, env.arena)?;
                }
                Ok(Val::List(list.into_bump_slice()))
            }
            Expr::Map(entries) => {
                let mut map = Buf::new_in(env.arena);
                for (key, item) in entries {
                    put_entry(&mut map, key, item.eval(env)?.encode(env.arena)?);
                }
                Ok(Val::Map(map.into_bump_slice()))
            }
            Expr::Neg(inner) => match inner.eval(env)? {
                Val::Int(i) => Ok(Val::Int(i.wrapping_neg())),
                Val::Double(d) => Ok(Val::Double(-d)),
                other => Err(Fault::wrong("\"-\"", "a number", other)),
            },
            Expr::Math(op, left, right) => math(*op, left.eval(env)?, right.eval(env)?),
            Expr::Call(call) => call.eval(env),
            Expr::Index(inner, keys) => inner.eval(env)?.index(keys, env.arena),
        }
    }
}

impl Test {
    #[inline]
    pub(super) fn eval(&self, env: &Env<'_, '_>) -> Result<bool, Fault> {
        Ok(match self {
            Test::Const(value) => *value,
            Test::Compare(op, left, right) => compare(*op, left.eval(env)?, right.eval(env)?, env.arena)?,
            Test::Value(expr) => match expr.eval(env)? {
                Val::Bool(value) => value,
                other => return Err(Fault::wrong("a condition", "a boolean", other)),
            },
            Test::Not(inner) => !inner.eval(env)?,
            Test::And(parts) => {
                for part in parts {
                    if !part.eval(env)? {
                        return Ok(false);
                    }
                }
                true
            }
            Test::Or(parts) => {
                for part in parts {
                    if part.eval(env)? {
                        return Ok(true);
                    }
                }
                false
            }
        })
    }
}

/// One operation. Integers wrap, as in Go; time and durations add.
pub(super) fn math<'a>(op: MathOp, left: Val<'a>, right: Val<'a>) -> Result<Val<'a>, Fault> {
    use MathOp::{Add, Div, Mul, Sub};
    Ok(match (op, left, right) {
        (Add, Val::Int(a), Val::Int(b)) => Val::Int(a.wrapping_add(b)),
        (Sub, Val::Int(a), Val::Int(b)) => Val::Int(a.wrapping_sub(b)),
        (Mul, Val::Int(a), Val::Int(b)) => Val::Int(a.wrapping_mul(b)),
        (Div, Val::Int(_), Val::Int(0)) => return Err(Fault::Other("division by zero")),
        (Div, Val::Int(a), Val::Int(b)) => Val::Int(a.wrapping_div(b)),
        (Add, Val::Double(a), Val::Double(b)) => Val::Double(a + b),
        (Sub, Val::Double(a), Val::Double(b)) => Val::Double(a - b),
        (Mul, Val::Double(a), Val::Double(b)) => Val::Double(a * b),
        (Div, Val::Double(_), Val::Double(0.0)) => return Err(Fault::Other("division by zero")),
        (Div, Val::Double(a), Val::Double(b)) => Val::Double(a / b),
        (Add, Val::Time(a), Val::Duration(b)) | (Add, Val::Duration(b), Val::Time(a)) => {
            Val::Time(a.wrapping_add(b))
        }
        (Sub, Val::Time(a), Val::Duration(b)) => Val::Time(a.wrapping_sub(b)),
        (Sub, Val::Time(a), Val::Time(b)) => Val::Duration(a.wrapping_sub(b)),
        (Add, Val::Duration(a), Val::Duration(b)) => Val::Duration(a.wrapping_add(b)),
        (Sub, Val::Duration(a), Val::Duration(b)) => Val::Duration(a.wrapping_sub(b)),
        (_, Val::Int(_) | Val::Double(_) | Val::Time(_) | Val::Duration(_), other) => {
            return Err(Fault::wrong("arithmetic", "two values of one type, integers or numbers", other));
        }
        (_, other, _) => return Err(Fault::wrong("arithmetic", "integers or numbers", other)),
    })
}

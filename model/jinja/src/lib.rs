//! Chat templates for a C program: minijinja set up as the transformers library sets up Jinja2.
//!
//! The C face is `quire_jinja.h`; its three functions are the only place with unsafe code. Every one of them catches
//! panics, trusts no length of a template's or a request's doing, and hands text out through the C library's malloc.

mod generation;
mod python_json;

use std::fmt;
use std::io;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::sync::{Arc, OnceLock};
use std::thread;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Rest;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value};

const NAME: &str = "chat template";

/// A template can nest a list in itself as often as its fuel allows, and the engine walks (and drops) nested values by
/// recursion. So rendering has a stack that holds as many levels as the fuel can buy; only what is used is memory.
const STACK_BYTES_A_STEP: u64 = 64;
const MIN_STACK_BYTES: u64 = 8 << 20;
const MAX_STACK_BYTES: u64 = 4 << 30;

/// The codes of `enum quire_jinja_result`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome {
    Ok = 0,
    Syntax = 1,
    Raised = 2,
    Runtime = 3,
    Limit = 4,
    Panic = 5,
    NoMemory = 6,
}

#[repr(C)]
pub struct Limits {
    fuel: u64,
    output_bytes: u64,
    recursion: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Time {
    year: i32,
    month: i32,
    day: i32,
    hour: i32,
    minute: i32,
    second: i32,
}

#[repr(C)]
pub struct Text {
    at: *mut u8,
    length: usize,
}

type FormatTime = unsafe extern "C" fn(out: *mut u8, capacity: usize, format: *const u8, time: *const Time) -> usize;

/// What goes back over the boundary when something went wrong.
struct Failure {
    outcome: Outcome,
    message: String,
}

/// An opened template.
pub struct Jinja {
    environment: Environment<'static>,
    output_bytes: u64,
    stack_bytes: usize,
    format_time: FormatTime,
}

/// The message of raise_exception, carried as the source of the engine's error.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

impl Jinja {
    fn open(template: &[u8], limits: &Limits, format_time: FormatTime) -> Result<Jinja, Failure> {
        let template = std::str::from_utf8(template)
            .map_err(|e| Failure { outcome: Outcome::Syntax, message: format!("it is not UTF-8: {e}") })?;
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(failure_of)?;
        environment.set_syntax(syntax);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.set_fuel(Some(limits.fuel));
        environment.set_recursion_limit(limits.recursion as usize);
        environment.add_filter("tojson", python_json::tojson);
        environment.add_filter("from_json", |text: &str| python_json::from_json(text));
        environment.add_function("raise_exception", raise_exception);
        environment
            .add_template_owned(NAME, generation::rewrite_generation_tags(template))
            .map_err(failure_of)?;
        let stack_bytes = limits.fuel.saturating_mul(STACK_BYTES_A_STEP);
        let stack_bytes = stack_bytes.clamp(MIN_STACK_BYTES, MAX_STACK_BYTES) as usize;
        Ok(Jinja { environment, output_bytes: limits.output_bytes, stack_bytes, format_time })
    }

    /// Renders on a thread of its own, for its stack.
    fn render(&self, context: &[u8], now: Time) -> Result<Vec<u8>, Failure> {
        let rendered = thread::scope(|scope| {
            let builder = thread::Builder::new().name("template".to_string()).stack_size(self.stack_bytes);
            let started = builder.spawn_scoped(scope, || self.render_here(context, now));
            started.map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)))
        });
        let no_thread = |e| Failure { outcome: Outcome::Limit, message: format!("no thread to render it on: {e}") };
        rendered.map_err(no_thread)?
    }

    fn render_here(&self, context: &[u8], now: Time) -> Result<Vec<u8>, Failure> {
        let json: serde_json::Value = serde_json::from_slice(context)
            .map_err(|e| Failure { outcome: Outcome::Syntax, message: format!("its variables are not JSON: {e}") })?;
        let serde_json::Value::Object(variables) = json else {
            return Err(Failure { outcome: Outcome::Syntax, message: "its variables are no JSON object".to_string() });
        };
        let format_time = self.format_time;
        let strftime_now = Value::from_function(move |format: &str| strftime(format_time, format, now));
        let variables = variables.into_iter().map(|(name, json)| (name, python_json::value_of(json)));
        let context = Value::from_pairs(std::iter::once(("strftime_now".to_string(), strftime_now)).chain(variables));

        let over_limit = Arc::new(OnceLock::new());
        let mut output = Output { bytes: Vec::new(), limit: self.output_bytes, over_limit: over_limit.clone() };
        let template = self.environment.get_template(NAME).map_err(failure_of)?;
        match template.render_captured_to(context, &mut output) {
            Ok(_) => Ok(output.bytes),
            Err(_) if over_limit.get().is_some() => {
                let message = format!("it wrote more than {} bytes", self.output_bytes);
                Err(Failure { outcome: Outcome::Limit, message })
            }
            Err(error) => Err(failure_of(error)),
        }
    }
}

/// A growing buffer with an end.
struct Output {
    bytes: Vec<u8>,
    limit: u64,
    over_limit: Arc<OnceLock<()>>,
}

impl io::Write for Output {
    fn write(&mut self, more: &[u8]) -> io::Result<usize> {
        if (self.bytes.len() + more.len()) as u64 > self.limit {
            let _ = self.over_limit.set(());
            return Err(io::Error::other("the output is too large"));
        }
        self.bytes.extend_from_slice(more);
        Ok(more.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn raise_exception(message: Rest<Value>) -> Result<Value, Error> {
    let message = message.first().map(Value::to_string).unwrap_or_default();
    Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message)))
}

fn strftime(format_time: FormatTime, format: &str, now: Time) -> Result<Value, Error> {
    if format.is_empty() {
        return Ok(Value::from(""));
    }
    if format.contains('\0') {
        return Err(Error::new(ErrorKind::InvalidOperation, "strftime_now got a format with U+0000"));
    }
    let format = format!("{format}\0");
    let mut out = [0u8; 512];
    // SAFETY: `format` is terminated, `out` has the capacity named, and both outlive the call.
    let length = unsafe { format_time(out.as_mut_ptr(), out.len(), format.as_ptr(), &now) };
    match out.get(..length).map(std::str::from_utf8) {
        Some(Ok(text)) if length > 0 => Ok(Value::from(text)),
        _ => Err(Error::new(ErrorKind::InvalidOperation, "strftime_now got a format that it cannot follow")),
    }
}

/// Sorts the engine's errors; a raise_exception anywhere below wins.
fn failure_of(error: Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    let mut outcome = match error.kind() {
        ErrorKind::SyntaxError | ErrorKind::BadEscape => Outcome::Syntax,
        _ => Outcome::Runtime,
    };
    while let Some(e) = cause {
        if let Some(raised) = e.downcast_ref::<Raised>() {
            return Failure { outcome: Outcome::Raised, message: raised.0.clone() };
        }
        if e.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfFuel) {
            outcome = Outcome::Limit;
        }
        cause = e.source();
    }
    Failure { outcome, message: error.to_string() }
}

extern "C" {
    fn malloc(bytes: usize) -> *mut u8;
}

/// Copies text into memory of the C library. At least one byte is taken, so that NULL means no memory.
fn hand_out(bytes: &[u8], text: &mut Text) -> bool {
    // SAFETY: the new block holds bytes.len() bytes and overlaps nothing.
    unsafe {
        let at = malloc(bytes.len().max(1));
        if at.is_null() {
            *text = Text { at: std::ptr::null_mut(), length: 0 };
            return false;
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
        *text = Text { at, length: bytes.len() };
    }
    true
}

/// Runs `work`, turns a panic into a failure, and writes what is to be said to `text`.
fn at_boundary<T>(text: &mut Text, work: impl FnOnce() -> Result<T, Failure>) -> Result<T, Outcome> {
    let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().map(String::as_str);
        let said = said.or(panic.downcast_ref::<&str>().copied()).unwrap_or("for no stated reason");
        Err(Failure { outcome: Outcome::Panic, message: format!("the template engine gave up: {said}") })
    });
    result.map_err(|failure| match hand_out(failure.message.as_bytes(), text) {
        true => failure.outcome,
        false => Outcome::NoMemory,
    })
}

/// # Safety
/// `out` and `message` can be written; `template` holds `template_length` bytes; `limits` can be read.
#[no_mangle]
pub unsafe extern "C" fn quire_jinja_open(
    out: *mut *mut Jinja,
    template: *const u8,
    template_length: usize,
    limits: *const Limits,
    format_time: FormatTime,
    message: *mut Text,
) -> Outcome {
    *out = std::ptr::null_mut();
    *message = Text { at: std::ptr::null_mut(), length: 0 };
    let bytes = std::slice::from_raw_parts(template, template_length);
    match at_boundary(&mut *message, || Jinja::open(bytes, &*limits, format_time)) {
        Ok(jinja) => {
            *out = Box::into_raw(Box::new(jinja));
            Outcome::Ok
        }
        Err(outcome) => outcome,
    }
}

/// # Safety
/// `jinja` came from quire_jinja_open and is used no more, or is NULL.
#[no_mangle]
pub unsafe extern "C" fn quire_jinja_close(jinja: *mut Jinja) {
    if !jinja.is_null() {
        let _ = catch_unwind(AssertUnwindSafe(|| drop(Box::from_raw(jinja))));
    }
}

/// # Safety
/// `jinja` is open; `context` holds `context_length` bytes; `now` can be read and `text` written.
#[no_mangle]
pub unsafe extern "C" fn quire_jinja_render(
    jinja: *const Jinja,
    context: *const u8,
    context_length: usize,
    now: *const Time,
    text: *mut Text,
) -> Outcome {
    *text = Text { at: std::ptr::null_mut(), length: 0 };
    let bytes = std::slice::from_raw_parts(context, context_length);
    match at_boundary(&mut *text, || (*jinja).render(bytes, *now)) {
        Ok(rendered) if hand_out(&rendered, &mut *text) => Outcome::Ok,
        Ok(_) => Outcome::NoMemory,
        Err(outcome) => outcome,
    }
}

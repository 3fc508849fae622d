//! A checkpoint's chat template, run as transformers runs it.
//!
//! Reference: transformers `utils/chat_template_utils.py`: Jinja with `trim_blocks` and `lstrip_blocks`
//! (both are off by default), Python's methods on strings, lists and maps, and `raise_exception`.

use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context, syntax::SyntaxConfig};

const NAME: &str = "chat_template";

pub(super) struct Template {
    environment: Environment<'static>,
    /// Beside the message: special tokens by name.
    variables: Vec<(String, String)>,
}

impl Template {
    pub(super) fn new(source: String, variables: Vec<(String, String)>) -> Result<Self, String> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(chain)?;
        environment.set_syntax(syntax);
        // Jinja prints nothing for a name it does not know, and the prompt would lack a token unsaid.
        environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_template_owned(NAME, source).map_err(chain)?;
        Ok(Self { environment, variables })
    }

    /// One user message of an image and the policy's text.
    pub(super) fn render(&self, policy: &str) -> Result<String, String> {
        let content = [context! { type => "image" }, context! { type => "text", text => policy }];
        self.run(context! { role => "user", content => content }, context! { add_generation_prompt => false })
    }

    /// One user message, and the beginning of the model's answer to it.
    pub(super) fn render_text(&self, message: &str) -> Result<String, String> {
        self.run(context! { role => "user", content => message }, context! { add_generation_prompt => true })
    }

    /// One user message as it is, and the policy as `guideline`: ShieldGemma's way (its model card's call).
    pub(super) fn render_guided(&self, message: &str, guideline: &str) -> Result<String, String> {
        let options = context! { add_generation_prompt => false, guideline => guideline };
        self.run(context! { role => "user", content => message }, options)
    }

    /// Whether the template speaks of a variable of this name.
    pub(super) fn names(&self, variable: &str) -> bool {
        let template = self.environment.get_template(NAME);
        template.is_ok_and(|template| template.undeclared_variables(false).contains(variable))
    }

    fn run(&self, message: Value, options: Value) -> Result<String, String> {
        let given = context! { messages => [message], tools => (), documents => () };
        let tokens =
            Value::from_pairs(self.variables.iter().map(|(name, token)| (name.as_str(), token.as_str())));
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(context! { ..given, ..options, ..tokens }))
            .map_err(chain)
    }
}

/// minijinja keeps the reason of a failed include or call in the source.
fn chain(error: Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(source: &str) -> Result<String, String> {
        let tokens = vec![("bos_token".to_owned(), "<bos>".to_owned())];
        Template::new(source.to_owned(), tokens)?.render("A & B")
    }

    #[test]
    fn blocks_are_trimmed_as_transformers_does() {
        let source = "{{ bos_token }}\n  {% for item in messages[0]['content'] %}\n[{{ item['type'] }}]\n  {% endfor %}\nend\n";
        assert_eq!(render(source).as_deref(), Ok("<bos>\n[image]\n[text]\nend"));
    }

    #[test]
    fn an_unknown_name_may_be_asked_for_but_not_printed() {
        assert_eq!(render("{% if cls_token %}a{% else %}b{% endif %}").as_deref(), Ok("b"));
        assert!(render("{{ cls_token }}").is_err());
    }

    #[test]
    fn pythons_methods_work() {
        let source =
            "{{ messages[0]['content'][1]['text'].strip().upper() }}{{ messages[0].get('x', 'none') }}";
        assert_eq!(render(source).as_deref(), Ok("A & Bnone"));
    }

    #[test]
    fn a_raised_exception_is_an_error_with_its_text() {
        let error = render("{{ raise_exception('only texts here') }}").expect_err("raised");
        assert!(error.contains("only texts here"), "{error}");
    }
}

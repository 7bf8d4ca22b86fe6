/// Works with a connection, logged in, after the usual upkeep of keys.
///
/// # Errors
/// [`Failure`] of the connection or of the work.
pub(crate) fn online<T>(
    ctx: &mut Context,
    work: impl FnOnce(&mut Client<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut connection = ctx.connect()?;
    let (store, out) = ctx.parts()?;
    let mut show = |event: &Event| out.show(event);
    let mut client = Client { store, server: &mut connection, show: &mut show };
    let done = client.upkeep().and_then(|()| work(&mut client));
    connection.quit();
    done
}

/// Works without a connection: whatever would have to be asked becomes a command for the person to type.
///
/// # Errors
/// [`Failure`].
pub(crate) fn offline<T>(
    ctx: &mut Context,
    work: impl FnOnce(&mut Client<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (store, out) = ctx.parts()?;
    let mut show = |event: &Event| out.show(event);
    work(&mut Client { store, server: &mut Nobody, show: &mut show })
}

/// No server.
struct Nobody;

impl Server for Nobody {
    fn ask_all(&mut self, commands: &[&str]) -> Result<Vec<Answer>, Lost> {
        Err(Lost::Offline(commands.iter().map(|command| (*command).to_owned()).collect()))
    }
}

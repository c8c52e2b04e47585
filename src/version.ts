/** The program's version; the protocol has its own. A test holds it against package.json. */
export const VERSION = '0.1.0';

/** The words that the rows of Linux share: firewall lines of an instance, each with its comment. */
import type { Row } from './platform.ts';

export const COMMENT = '-m comment --comment vpn:$TAG';
/** The xtables lock is waited for, but not longer than a command may take (rules.ts). */
export const IPTABLES = 'iptables -w 4';
export const IP6TABLES = 'ip6tables -w 4';

/** An inserted firewall line; its undo is the same command with one word changed. */
export function inserted(need: string, up: string): Row {
  return { need, up, down: up.replace(' -I ', ' -D ') };
}

/** Replies whose mark was restored are looked up with it where the reverse path is checked (ip-sysctl.rst). */
export function validMarks(need: string): Row {
  return { need, sysctl: 'net/ipv4/conf/all/src_valid_mark', value: '1', optional: true };
}

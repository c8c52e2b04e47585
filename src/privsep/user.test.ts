import { deepEqual, equal, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { workerUser } from './user.ts';

type Accounts = Readonly<Record<string, { readonly uid: number; readonly gid: number }>>;

const asked = (wanted: string, accounts: Accounts, uid: number | '' = 0, seed = 1234) =>
  workerUser(wanted, { findUser: (name) => accounts[name] }, uid === '' ? undefined : uid, seed);

describe('the user of a worker', () => {
  it('is the one that was asked for', () => {
    deepEqual(asked('mlvpn', { mlvpn: { uid: 120, gid: 130 } }), { uid: 120, gid: 130 });
  });

  it('is _vpn where there is one', () => {
    deepEqual(asked('', { _vpn: { uid: 110, gid: 111 } }), { uid: 110, gid: 111 });
  });

  it('is nobody else otherwise', () => {
    const { uid, gid } = asked('', {});
    equal(uid, gid);
    equal(uid >= 61_184 && uid <= 65_519, true);
    const next = asked('', { [uid]: { uid, gid } });
    equal(next.uid, uid + 1);
  });

  it('is another for another instance', () => {
    equal(asked('', {}, 0, 1).uid === asked('', {}, 0, 2).uid, false);
  });

  it('stays the same where there is nothing to give up', () => {
    deepEqual(asked('', {}, 1000), { uid: 0, gid: 0 });
    deepEqual(asked('', {}, ''), { uid: 0, gid: 0 });
  });

  it('is never root, nor of its group', () => {
    throws(() => asked('root', { root: { uid: 0, gid: 0 } }), /has the rights of root/);
    throws(() => asked('x', { x: { uid: 5, gid: 0 } }), /has the rights of root/);
  });

  it('is there', () => {
    throws(() => asked('nobody-there', {}), /user "nobody-there": no such user; create it/);
  });
});

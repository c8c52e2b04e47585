/** States of tunnels for tests of what is made of them. */
import type { About, LinkStatus, TunnelStatus } from '../src/daemon/status.ts';

export function linkStatus(changes: Partial<LinkStatus> = {}): LinkStatus {
  return {
    id: 0,
    name: 'dsl',
    isBackup: false,
    state: 'up',
    place: 0,
    endpoint: '192.0.2.1:443',
    rttMs: 20.44,
    jitterMs: 1.23,
    lossRatio: 0.0123,
    sentPackets: 100,
    sentBytes: 140_000,
    receivedPackets: 50,
    receivedBytes: 70_000,
    lostPackets: 3,
    repairedPackets: 2,
    capacity: 1_250_000,
    maxRate: 0,
    latencyLimitMs: 0,
    lossLimit: 0,
    mtu: 1500,
    heardAgoMs: 100,
    ...changes,
  };
}

export function tunnelStatus(
  links: readonly LinkStatus[] = [linkStatus()],
  changes: Partial<TunnelStatus> = {},
): TunnelStatus {
  return {
    role: 'client',
    hasSession: true,
    cipher: 1,
    keyAgeMs: 61_500,
    heardAgoMs: 100,
    tunMtu: 1420,
    isBonding: true,
    sentPackets: 90,
    receivedPackets: 45,
    holdMs: 55.55,
    heldPackets: 1,
    waitingBytes: 2,
    repairedPackets: 2,
    abandonedPackets: 1,
    dropped: { forged: 4, queueFull: 5 },
    links,
    ...changes,
  };
}

export const ABOUT: About = {
  name: 'home',
  version: '0.1.0',
  pid: 4242,
  device: 'tun0',
  deviceType: 'tun',
  localIp: '192.168.192.1',
  peerIp: '192.168.192.254',
  isCleartext: false,
  timeoutSeconds: 60,
  bindingOf: () => ({ device: 'eth0', address: '', port: 0 }),
};

package rootapi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
)

// addAddress makes addr one of the loopback interface's, which has 127.0.0.1
// only. It lasts until the machine starts again.
func addAddress(ctx context.Context, addr netip.Addr) error {
	return ifconfig(ctx, "alias", addr.String(), "netmask", "255.255.255.255")
}

// removeAddresses takes those within the range away again.
func removeAddresses(ctx context.Context, within netip.Prefix) error {
	lo, err := net.InterfaceByName("lo0")
	if err != nil {
		return err
	}
	addrs, err := lo.Addrs()
	if err != nil {
		return err
	}
	var errs []error
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && within.Contains(p.Addr()) {
			errs = append(errs, ifconfig(ctx, "-alias", p.Addr().String()))
		}
	}
	return errors.Join(errs...)
}

func ifconfig(ctx context.Context, args ...string) error {
	out, err := exec.CommandContext(ctx, "/sbin/ifconfig", append([]string{"lo0"}, args...)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ifconfig lo0 %v: %w: %s", args, err, bytes.TrimSpace(out))
	}
	return nil
}

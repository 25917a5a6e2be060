//go:build unix

package verifiers

import (
	"context"
	"crypto/tls"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tunneld/tunneld/internal/await"
)

// play puts a script in place of a program. The real one is $real in it.
func play(t *testing.T, program, body string) {
	t.Helper()
	dir := t.TempDir()
	script := "#!/bin/sh\nreal='" + onPath(program) + "'\ndir='" + dir + "'\n" + body + "\n"
	if err := os.WriteFile(filepath.Join(dir, program), []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	t.Setenv("played", dir)
}

// Clients that are not what they seem. None of them is said to trust or refuse
// anything, whatever it prints and however it ends, without a handshake to show for it.
func TestPlayed(t *testing.T) {
	ca := newAuthority(t)
	for _, tt := range []struct {
		name, script string
		want         Verdict
		evidence     string
	}{
		{"says that all is well", `echo 200 OK`, Unknown, "it did not come as far as to be shown the certificate: exit status 0"},
		{"fails at once", `echo "  no such	option: --what` + "\x1b[1m" + `" >&2; echo more >&2; exit 2`, Unknown, "it did not come as far as to be shown the certificate: no such option: --what [1m"},
		{"crashes", `kill -SEGV $$`, Unknown, "it did not come as far as to be shown the certificate: signal: segmentation fault"},
		{"prints without an end", `yes >&2 & yes`, Unknown, "it did not answer within 500ms"},
		{"hangs", `sleep 1000`, Unknown, "it did not answer within 500ms"},
		{"hangs, and does not want to end", `trap "" INT TERM HUP; echo waiting >&2; while :; do sleep 1000; done`, Unknown, "it did not answer within 500ms"},
		{"leaves a child", `sleep 1000 & echo done >&2`, Unknown, "it did not come as far as to be shown the certificate: done"},
		{"speaks no TLS", `exec 3<>/dev/null; for last; do :; done; "$real" -s "http${last#https}" >&2 || exit 3`, Unknown, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			need(t, "curl")
			isolated(t)
			play(t, "curl", tt.script)
			c := Checker{Only: []string{"curl"}, limits: patient}
			// What it has printed by then is told, too, if it came to that.
			short := strings.Contains(tt.evidence, "500ms")
			if short {
				c.limits.program = 500 * time.Millisecond
			}
			r := check(t, c, ca.cert)["curl"]
			if r.Verdict != tt.want || !strings.HasPrefix(r.Evidence, tt.evidence) || !short && tt.evidence != "" && r.Evidence != tt.evidence {
				t.Errorf("got %s (%s); want %s (%s)", r.Verdict, r.Evidence, tt.want, tt.evidence)
			}
		})
	}
}

// What a client does with its first server says nothing of it if the second one
// cannot be asked, and a client that ends well has not thereby accepted anything.
func TestPlayedForComparison(t *testing.T) {
	need(t, "curl")
	ca := newAuthority(t)
	const once = `if [ -e "$dir/asked" ]; then %; else touch "$dir/asked"; exec "$real" "$@"; fi`
	for _, tt := range []struct {
		name, then string
		want       Verdict
	}{
		{"refuses the other", `"$real" "$@"; exit 0`, Trusts}, // by its alert
		{"does not come to the other", `exit 1`, Unknown},
		{"hangs with the other", `sleep 1000`, Unknown},
		{"accepts the other", `exec "$real" --insecure "$@"`, Careless},
	} {
		t.Run(tt.name, func(t *testing.T) {
			isolated(t)
			t.Setenv("CURL_CA_BUNDLE", ca.file)
			play(t, "curl", strings.Replace(once, "%", tt.then, 1))
			c := Checker{Only: []string{"curl"}, limits: patient}
			if strings.HasPrefix(tt.then, "sleep") {
				c.limits.program = 5 * time.Second // the first time, too, which takes a fraction of it
			}
			if r := check(t, c, ca.cert)["curl"]; r.Verdict != tt.want {
				t.Errorf("got %s (%s); want %s", r.Verdict, r.Evidence, tt.want)
			}
		})
	}
}

// A path that a client asks for without having been told counts for nothing, and
// nor does the path of the other server.
func TestOtherRequests(t *testing.T) {
	need(t, "curl")
	ca := newAuthority(t)
	isolated(t)
	t.Setenv("CURL_CA_BUNDLE", ca.file)
	play(t, "curl", `for last; do :; done; exec "$real" --silent --noproxy "*" "${last%/*}/" "${last}x"`)
	if r := check(t, Checker{Only: []string{"curl"}}, ca.cert)["curl"]; r.Verdict != Unknown {
		t.Errorf("got %s (%s)", r.Verdict, r.Evidence)
	}
}

// The environment of the user reaches the client, but for the proxies.
func TestEnvironment(t *testing.T) {
	isolated(t)
	t.Setenv("NO_PROXY", "example.com")
	t.Setenv("SSL_CERT_FILE", "/some/file")
	play(t, "curl", `echo "$NO_PROXY $no_proxy $SSL_CERT_FILE $HOME" >&2; exit 1`)
	r := check(t, Checker{Only: []string{"curl"}}, newAuthority(t).cert)["curl"]
	if want := "example.com,127.0.0.1 127.0.0.1 /some/file " + os.Getenv("HOME"); !strings.HasSuffix(r.Evidence, want) {
		t.Errorf("got %q; want %q", r.Evidence, want)
	}
}

// A check that is called off ends what it has started.
func TestCalledOff(t *testing.T) {
	isolated(t)
	play(t, "curl", `sleep 1000 & echo $! >"$dir/child.new"; mv "$dir/child.new" "$dir/child"; wait`)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := (&Checker{limits: patient, Only: []string{"curl"}}).Check(ctx, newAuthority(t).cert)
		ended <- err
	}()
	child := playedChild(t)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v; want %v", err, context.Canceled)
	}
	await.Until(t, "the end of the child", func() bool { return isGone(child) })
}

// playedChild waits until a played client has written the number of a process.
func playedChild(t *testing.T) (pid int) {
	t.Helper()
	await.Until(t, "the client's child", func() bool {
		data, err := os.ReadFile(filepath.Join(os.Getenv("played"), "child"))
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
		return err == nil
	})
	return pid
}

// A client does not stay when the process that checks is killed. Elsewhere it does.
func TestKilled(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux ends processes with their parents")
	}
	isolated(t)
	play(t, "curl", `echo $$ >"$dir/child.new"; mv "$dir/child.new" "$dir/child"; exec sleep 1000`)
	cmd := alone(t, "curl", newAuthority(t).cert)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	child := playedChild(t)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "the end of the client", func() bool { return isGone(child) })
	// Its files stay, which a process that is killed cannot remove.
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "tunnelctl-check-*"))
	if err != nil || len(left) != 1 {
		t.Errorf("left are %v (%v)", left, err)
	}
	for _, dir := range left {
		os.RemoveAll(dir)
	}
}

// isGone reports whether a process has ended. Whose parent has ended may never be
// waited for, if the first process of the system does not do that.
func isGone(pid int) bool {
	if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
		return true
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err == nil && strings.Contains(string(stat), ") Z ")
}

func TestWrongUse(t *testing.T) {
	ca := newAuthority(t)
	if _, err := new(Checker).Check(t.Context(), tls.Certificate{}); err == nil {
		t.Error("a check without a certificate")
	}
	if _, err := (&Checker{Only: []string{"Curl"}}).Check(t.Context(), ca.cert); err == nil {
		t.Error("a check of a kind of client that there is not")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := new(Checker).Check(ctx, ca.cert); !errors.Is(err, context.Canceled) {
		t.Errorf("a check that was called off before: %v", err)
	}
}

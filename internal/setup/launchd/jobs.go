// Package launchd plans tunneld as a service of a Mac, and has launchd do its part:
// the daemon is a LaunchAgent, in the session of its user, and tunneld-helper a
// LaunchDaemon, which launchd starts when somebody connects to its socket.
package launchd

import (
	"path"
	"strconv"
)

// AgentLabel is what launchd knows the daemon by. Each user has a launchd domain of
// their own, so it is the same for all.
const AgentLabel = "io.github.tunneld.tunneld"

// HelperLabel is what launchd knows the tunneld-helper of a user by.
func HelperLabel(uid string) string { return AgentLabel + "-helper." + uid }

const (
	// ProgramDir is where the programs are put: below Apple's place for what root
	// runs, in which nobody else may write. /usr/local is not, since Homebrew has been
	// giving it, or much of it, to the user.
	ProgramDir = privilegedDir + "/" + AgentLabel

	privilegedDir = "/Library/PrivilegedHelperTools"
	daemonDir     = "/Library/LaunchDaemons"
	policyDir     = "/etc/tunneld/helper"
	// helperState is the helper's directory.
	helperState = "/var/db/tunneld-helper"
	// pathsDir has files with directories that shells look for programs in: path_helper(8).
	pathsDir = "/etc/paths.d"
)

func programPath(name string) string { return path.Join(ProgramDir, name) }

// agentSource is the definition of a user's agent, where only root may change it.
// launchd reads a copy in the user's home.
func agentSource(uid string) string { return path.Join(ProgramDir, AgentLabel+"."+uid+".plist") }

func agentPath(home string) string {
	return path.Join(home, "Library", "LaunchAgents", AgentLabel+".plist")
}

func helperPath(uid string) string { return path.Join(daemonDir, HelperLabel(uid)+".plist") }

func policyPath(uid string) string { return path.Join(policyDir, uid+".json") }

// Log is where launchd has the daemon's error output written. It is a file in a
// directory that every home has: launchd makes none, and does not start what it cannot
// open the files of.
func Log(home string) string { return path.Join(home, "Library", "Logs", "tunneld.log") }

// socketDir is where the daemon makes its control socket.
func socketDir(home string) string { return path.Join(home, "Library", "Caches", "tunneld") }

// ControlSocket is the socket of a user's daemon.
func ControlSocket(home string) string { return path.Join(socketDir(home), "tunneld.sock") }

// Agent is the property list of a user's daemon.
func Agent(home string) []byte {
	return plist(dict{
		{"Label", AgentLabel},
		{"ProgramArguments", []string{programPath("tunneld"), "run", "--service"}},
		// Aqua is the session of who sits at the machine, and Background that of who
		// comes over SSH, where there may be no other.
		{"LimitLoadToSessionType", []string{"Aqua", "Background"}},
		{"RunAtLoad", true},
		{"KeepAlive", true},
		// launchd would wait for up to 10 s after a crash.
		{"ThrottleInterval", 1},
		// Others have their CPU and their I/O throttled, and connections go through this one.
		{"ProcessType", "Interactive"},
		{"ExitTimeOut", 10},
		{"StandardErrorPath", Log(home)},
	})
}

// Helper is the property list of a user's tunneld-helper.
func Helper(uid int, socket string) []byte {
	id := strconv.Itoa(uid)
	return plist(dict{
		{"Label", HelperLabel(id)},
		// It stays for 10 s: who ends before is started again only when these are over.
		{"ProgramArguments", []string{
			programPath("tunneld-helper"), "serve", "--inetd", "--idle", "10s", "--policy", policyPath(id),
		}},
		{"inetdCompatibility", dict{{"Wait", true}}},
		{"Sockets", dict{{"Listeners", dict{
			{"SockType", "stream"},
			{"SockPathName", socket},
			{"SockPathOwner", uid},
			{"SockPathMode", 0o600},
		}}}},
		{"ThrottleInterval", 1},
		{"ProcessType", "Interactive"},
		{"Umask", 0o022},
	})
}

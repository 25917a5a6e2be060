package systemd

import (
	"errors"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tunneld/tunneld/internal/setup"
)

const (
	unitDir = "/etc/systemd/system"
	// ProgramDir is where the programs are put that no package has brought.
	ProgramDir = "/usr/local/libexec/tunneld"
	linkDir    = "/usr/local/bin"
	policyDir  = "/etc/tunneld/helper"
	// helperState is the helper's directory: see its units.
	helperState = "/var/lib/tunneld-helper"
)

// Programs are where tunneld's programs are.
type Programs struct {
	Daemon, Client, Helper string
}

var (
	// Packaged are the programs of a package, which brings units for them.
	Packaged = Programs{"/usr/bin/tunneld", "/usr/bin/tunnelctl", "/usr/libexec/tunneld-helper"}
	// Copied are those that are put there by an installation.
	Copied = Programs{ProgramDir + "/tunneld", ProgramDir + "/tunnelctl", ProgramDir + "/tunneld-helper"}
)

// A Wish is what a plan is made for.
type Wish struct {
	UID string
	// State and Environment are the user's state directory, and the file in it that has
	// the captured environment. Missing are those directories of the user's that a
	// daemon would have to make, the outermost first.
	State, Environment string
	Missing            []string
	// Domain, Addresses and Ports are of the user's configuration.
	Domain    string
	Addresses netip.Prefix
	Ports     []uint16
	// Packaged says that a package has put programs and units in place; else Content
	// has the programs, by their names, and Units their units.
	Packaged bool
	Content  map[string][]byte
	Units    fs.FS
	// Without are the steps to leave out.
	Without []string
}

// Steps are those of a plan, in their order.
func Steps() []string {
	return []string{setup.ServiceStep, setup.NamesStep, setup.EnvironmentStep, setup.TrustStep}
}

// Programs are those that a plan for w runs.
func (w Wish) Programs() Programs {
	if w.Packaged {
		return Packaged
	}
	return Copied
}

// Daemon is the name of the unit of a user's daemon, and Helper that of the socket
// of their tunneld-helper.
func Daemon(uid string) string { return "tunneld@" + uid + ".service" }

// Helper is the unit of the socket of a user's tunneld-helper.
func Helper(uid string) string { return "tunneld-helper@" + uid + ".socket" }

// Plan is what has to be there for w, in the order in which it is made.
func Plan(w Wish) ([]setup.Item, error) {
	var plan []setup.Item
	if !w.Packaged {
		units, err := unitItems(w.Units)
		if err != nil {
			return nil, err
		}
		plan = slices.Concat(programItems(w.Content), units)
	}
	policy, err := policyItems(w)
	if err != nil {
		return nil, err
	}
	plan = append(plan, policy...)
	plan = append(plan,
		setup.HomeItem(w.State, w.Missing),
		setup.EnvironmentItem(w.Environment),
		// Not restarted when its unit is another one: that would take the names back.
		setup.Item{Change: setup.Change{
			Step: setup.NamesStep, Kind: setup.Service, Path: Helper(w.UID),
			Why: "names that resolve, ports 80 and 443; root, only while it is asked", Undo: "stopped, which takes the names back, and disabled",
		}},
		setup.Item{
			Change: setup.Change{
				Step: setup.ServiceStep, Kind: setup.Service, Path: Daemon(w.UID),
				Why: "the daemon, as the user, without any privilege", Undo: "stopped and disabled",
			},
			Runs: []string{filepath.Join(unitDir, "tunneld@.service"), Copied.Daemon},
		},
		setup.TrustItem(w.Domain),
	)
	return slices.DeleteFunc(plan, func(i setup.Item) bool { return slices.Contains(w.Without, i.Step) }), nil
}

// programItems puts copies of the programs where only root can change them.
func programItems(content map[string][]byte) []setup.Item {
	items := []setup.Item{
		setup.DirectoryItem(setup.ServiceStep, filepath.Dir(ProgramDir), "for the programs"),
		setup.DirectoryItem(setup.ServiceStep, ProgramDir, "for the programs"),
	}
	for _, name := range []string{"tunneld", "tunnelctl", "tunneld-helper"} {
		items = append(items, setup.FileItem(setup.ServiceStep, filepath.Join(ProgramDir, name), 0o755, content[name], "root runs nothing that a user can change"))
	}
	items = append(items, setup.DirectoryItem(setup.ServiceStep, linkDir, "for the programs"))
	for _, name := range []string{"tunneld", "tunnelctl"} {
		items = append(items, setup.Item{
			Change: setup.Change{
				Step: setup.ServiceStep, Kind: setup.Link, Path: filepath.Join(linkDir, name), Target: filepath.Join(ProgramDir, name),
				Why: "to be found by shells", Undo: "removed unless it was changed",
			},
			Optional: true,
		})
	}
	return items
}

// unitItems are the units, with the paths of the copies.
func unitItems(units fs.FS) ([]setup.Item, error) {
	paths := strings.NewReplacer(Packaged.Daemon+" ", Copied.Daemon+" ", Packaged.Client+" ", Copied.Client+" ", Packaged.Helper+" ", Copied.Helper+" ")
	names, err := fs.Glob(units, "*@.s*")
	if err != nil || len(names) == 0 {
		return nil, errors.Join(errors.New("there are no units"), err)
	}
	var items []setup.Item
	for _, name := range names {
		text, err := fs.ReadFile(units, name)
		if err != nil {
			return nil, err
		}
		items = append(items, setup.FileItem(setup.ServiceStep, filepath.Join(unitDir, name), 0o644, []byte(paths.Replace(string(text))), "how systemd runs it"))
	}
	return items, nil
}

// policyItems say what the helper may do for the user.
func policyItems(w Wish) ([]setup.Item, error) {
	policy, err := setup.Policy{UID: w.UID, Domain: w.Domain, Addresses: w.Addresses, Ports: w.Ports}.Item(filepath.Join(policyDir, w.UID+".json"))
	if err != nil {
		return nil, err
	}
	return []setup.Item{
		setup.DirectoryItem(setup.NamesStep, filepath.Dir(policyDir), "what tunneld-helper may do"),
		setup.DirectoryItem(setup.NamesStep, policyDir, "what tunneld-helper may do"),
		policy,
		// The helper would make them itself, and not remove them.
		setup.DirectoryItem(setup.NamesStep, helperState, "where tunneld-helper notes what is in force"),
		setup.FileItem(setup.NamesStep, filepath.Join(helperState, "lock"), 0o600, nil, "one tunneld-helper at a time changes the system"),
	}, nil
}

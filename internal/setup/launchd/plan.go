package launchd

import (
	"fmt"
	"path"
	"slices"
	"strconv"

	"github.com/tunneld/tunneld/internal/setup"
)

// A Wish is what a plan is made for.
type Wish struct {
	setup.Policy
	Home string
	// Socket is where the user's daemon looks for its helper.
	Socket string
	// State and Environment are the user's state directory, and the file in it that has
	// the captured environment. Missing are those directories of the user's that a
	// daemon would have to make, the outermost first.
	State, Environment string
	Missing            []string
	// Content has the programs, by their names.
	Content map[string][]byte
	// Without are the steps to leave out.
	Without []string
}

// Steps are those of a plan, in their order.
func Steps() []string {
	return []string{setup.ServiceStep, setup.NamesStep, setup.EnvironmentStep, setup.TrustStep}
}

// Plan is what has to be there for w, in the order in which it is made.
func Plan(w Wish) ([]setup.Item, error) {
	uid, err := strconv.Atoi(w.UID)
	if err != nil || uid < 0 {
		return nil, fmt.Errorf("%q is no user id", w.UID)
	}
	policy, err := w.Policy.Item(policyPath(w.UID))
	if err != nil {
		return nil, err
	}
	agent, helper := agentSource(w.UID), helperPath(w.UID)
	plan := append(programItems(w.Content),
		setup.DirectoryItem(setup.NamesStep, path.Dir(policyDir), "what tunneld-helper may do"),
		setup.DirectoryItem(setup.NamesStep, policyDir, "what tunneld-helper may do"),
		policy,
		// The helper would make them itself, and not remove them.
		setup.DirectoryItem(setup.NamesStep, helperState, "where tunneld-helper notes what is in force"),
		setup.FileItem(setup.NamesStep, path.Join(helperState, "lock"), 0o600, nil, "one tunneld-helper at a time changes the system"),
		setup.FileItem(setup.NamesStep, helper, 0o644, Helper(uid, w.Socket), "how launchd runs tunneld-helper"),
		setup.FileItem(setup.ServiceStep, agent, 0o644, Agent(w.Home), "how launchd runs the daemon"),
		setup.HomeItem(w.State, w.Missing),
		setup.EnvironmentItem(w.Environment),
		setup.Item{
			Change: setup.Change{
				Step: setup.NamesStep, Kind: setup.Service, Path: HelperLabel(w.UID),
				Why: "names that resolve, ports 80 and 443; root, only while it is asked", Undo: "stopped, and the names taken back",
			},
			Runs: []string{helper},
		},
		setup.Item{
			Change: setup.Change{
				Step: setup.ServiceStep, Kind: setup.Service, Path: AgentLabel,
				Why:  "the daemon, as the user, from login on: " + agentPath(w.Home),
				Undo: "stopped; that file, its log and its socket removed, as the user",
			},
			Runs: []string{agent, programPath("tunneld")},
		},
		setup.TrustItem(w.Policy.Domain),
	)
	return slices.DeleteFunc(plan, func(i setup.Item) bool { return slices.Contains(w.Without, i.Step) }), nil
}

// programItems puts copies of the programs where only root can change them.
func programItems(content map[string][]byte) []setup.Item {
	items := []setup.Item{
		setup.DirectoryItem(setup.ServiceStep, privilegedDir, "for the programs"),
		setup.DirectoryItem(setup.ServiceStep, ProgramDir, "for the programs"),
	}
	for _, name := range []string{"tunneld", "tunnelctl", "tunneld-helper"} {
		items = append(items, setup.FileItem(setup.ServiceStep, programPath(name), 0o755, content[name], "root runs nothing that a user can change"))
	}
	return append(items,
		setup.DirectoryItem(setup.ServiceStep, pathsDir, "for what shells find"),
		setup.FileItem(setup.ServiceStep, path.Join(pathsDir, "tunneld"), 0o644, []byte(ProgramDir+"\n"), "to be found by shells"),
	)
}

// The driver of memberlist: its default settings for a local network.
//
// It obeys the commands of drivers/commands.py: a JSON object in a line, answered by one.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// A user's program would try again if its first node can't be reached; memberlist itself doesn't.
const (
	joinAgain = time.Second
	patience  = 30 * time.Second
)

type command struct {
	Do        string
	Count     int
	Prefix    string
	Address   string
	Bootstrap *string
	Held      int
	Total     int
	Member    string
	Node      int
	Within    float64
}

type answer map[string]any

type driver struct {
	nodes []*memberlist.Memberlist
}

// begin starts one node, and has it join the swarm of another.
func begin(name, address string, bootstrap *string) (*memberlist.Memberlist, error) {
	config := memberlist.DefaultLANConfig()
	config.Name = name
	config.BindAddr = address
	config.BindPort = 0
	config.AdvertisePort = 0
	config.LogOutput = io.Discard
	node, err := memberlist.Create(config)
	if err != nil || bootstrap == nil {
		return node, err
	}
	for end := time.Now().Add(patience); ; time.Sleep(joinAgain) {
		if _, err = node.Join([]string{*bootstrap}); err == nil || time.Now().After(end) {
			return node, err
		}
	}
}

// start starts node 0 if the swarm begins here, then all others at once.
func (d *driver) start(c command) (answer, error) {
	d.nodes = make([]*memberlist.Memberlist, c.Count)
	name := func(number int) string { return fmt.Sprintf("%s-%d", c.Prefix, number) }
	from, bootstrap := 0, c.Bootstrap
	if bootstrap == nil {
		first, err := begin(name(0), c.Address, nil)
		if err != nil {
			return nil, err
		}
		wayIn := first.LocalNode().Address()
		d.nodes[0], from, bootstrap = first, 1, &wayIn
	}
	errs := make([]error, c.Count)
	var all sync.WaitGroup
	for number := from; number < c.Count; number++ {
		all.Go(func() { d.nodes[number], errs[number] = begin(name(number), c.Address, bootstrap) })
	}
	all.Wait()
	members := make([]string, c.Count)
	for number, err := range errs {
		if err != nil {
			return nil, err
		}
		members[number] = name(number)
	}
	return answer{"bootstrap": *bootstrap, "members": members, "pids": []int{os.Getpid()}}, nil
}

// waitForAll waits until `objection` has nothing to say about any node, at one time.
func waitForAll(objection func(*memberlist.Memberlist) string, nodes []*memberlist.Memberlist, within float64) answer {
	every := max(time.Millisecond, time.Duration(len(nodes))*10*time.Microsecond)
	end := time.Now().Add(time.Duration(within * float64(time.Second)))
	var checkedFrom time.Time
	for node := 0; ; {
		switch why := objection(nodes[node]); {
		case why != "":
			checkedFrom = time.Time{}
			if time.Now().After(end) {
				return answer{"done": false, "why": why}
			}
			time.Sleep(every)
		case node+1 < len(nodes):
			node++
		case checkedFrom.IsZero():
			// Now once more: no node may have forgotten what it listed before.
			node, checkedFrom = 0, time.Now()
		default:
			return answer{"done": true, "checking": time.Since(checkedFrom).Seconds()}
		}
	}
}

func (d *driver) obey(c command) (answer, error) {
	switch c.Do {
	case "start":
		return d.start(c)
	case "full":
		return waitForAll(func(node *memberlist.Memberlist) string {
			if listed := node.NumMembers(); listed != c.Total {
				return fmt.Sprintf("a node lists %d of %d", listed, c.Total)
			}
			return ""
		}, d.nodes[:c.Held], c.Within), nil
	case "gone":
		return waitForAll(func(node *memberlist.Memberlist) string {
			for _, member := range node.Members() {
				if member.Name == c.Member {
					return "a node lists it"
				}
			}
			return ""
		}, d.nodes[:c.Held], c.Within), nil
	case "leave":
		if err := d.nodes[c.Node].Leave(patience); err != nil {
			return nil, err
		}
		return answer{}, d.nodes[c.Node].Shutdown()
	}
	return nil, fmt.Errorf("there is no command %s", c.Do)
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, module := range info.Deps {
			if module.Path == "github.com/hashicorp/memberlist" {
				return module.Version
			}
		}
	}
	return "unknown"
}

func main() {
	answers := json.NewEncoder(os.Stdout)
	tell := func(what answer) {
		if err := answers.Encode(what); err != nil {
			os.Exit(1)
		}
	}
	tell(answer{"version": version()})
	var d driver
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var c command
		err := json.Unmarshal(lines.Bytes(), &c)
		var done answer
		if err == nil {
			done, err = d.obey(c)
		}
		if err != nil {
			done = answer{"error": err.Error()}
		}
		tell(done)
	}
}

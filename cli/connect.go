package cli

import "github.com/lull-dev/lull/control"

// node returns the node that this command talks to: the one that LULL_API and LULL_TOKEN name, else the one this user
// started.
func (a *app) node() (control.Node, error) {
	url, token, err := control.Find(a.env.UserConfigDir, a.env.Getenv("LULL_API"), a.env.Getenv("LULL_TOKEN"))
	if err != nil {
		return nil, err
	}
	return a.env.Connect(url, token), nil
}

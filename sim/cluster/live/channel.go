package live

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/client-go/rest"

	"github.com/layersim/layersim/sim/cluster/live/agent"
)

// channel is this process's end of the channels to the agents of a run in the cluster.
type channel struct {
	*agent.Answers
	token   string
	address string
	stop    context.CancelFunc
	done    chan error
}

// openChannel returns it. The first call opens it, at the address at which pods reach this process.
func (e *Engine) openChannel() (*channel, error) {
	if e.agents != nil {
		return e.agents, nil
	}
	if e.Address == "" {
		return nil, errors.New("pods can't reach this process: there is no address for them")
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(e.Address, "0"))
	if err != nil {
		return nil, fmt.Errorf("open the channel to agents: %w", err)
	}
	c := &channel{token: rand.Text(), address: listener.Addr().String(), done: make(chan error, 1)}
	c.Answers = agent.NewAnswers(c.token)
	ctx, stop := context.WithCancel(context.Background()) // it is closed after all else
	c.stop = stop
	go func() { c.done <- c.Serve(ctx, listener) }()
	e.agents, e.token = c, c.token
	return c, nil
}

func (c *channel) close() error {
	c.stop()
	return <-c.done
}

// world is where an agent of that name reaches this process: the content of its [agent.WorldFile].
func (c *channel) world(name string) *url.URL {
	return &url.URL{Scheme: "http", Host: c.address, User: url.UserPassword(name, c.token)}
}

// asker asks the agents that a service leads to, or the one in a pod, by the API server's proxy: resource is "services" or
// "pods".
func (e *Engine) asker(resource, namespace, name string) (*agent.Asker, error) {
	c, err := e.openChannel()
	if err != nil {
		return nil, err
	}
	return podAsker(e.Server.config, resource, namespace, name, c.token)
}

// podAsker is asker for a cluster and a token.
func podAsker(config *rest.Config, resource, namespace, name, token string) (*agent.Asker, error) {
	config = rest.CopyConfig(config)
	config.Timeout = agent.Patience
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, err
	}
	at := base.JoinPath("api", "v1", "namespaces", namespace, resource, fmt.Sprintf("%s:%d", name, agent.AdminPort), "proxy")
	return &agent.Asker{URL: strings.TrimSuffix(at.String(), "/"), Token: token, From: "layersim", Client: client, Patience: askPatience}, nil
}

// askPatience is how long an agent may not answer: as long as it may take to start it again.
const askPatience = time.Minute

var _ http.Handler = (*channel)(nil)

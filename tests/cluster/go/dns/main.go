// Command dns is CoreDNS with just the plugins that answer for a cluster and say what went wrong. It is a module of its
// own because it needs newer Kubernetes libraries than Kubernetes 1.35 is built with.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

// also the order in which a query passes the plugins
var plugins = []string{"bind", "errors", "ready", "cache", "kubernetes"}

func main() {
	dnsserver.Directives = plugins
	coremain.Run()
}

// Package service is what all packages of the module know about Tablestore in common:
// how credentials are kept, what the service's error codes mean, and how a call of its
// table API is made. A rule about the service stands here once.
package service

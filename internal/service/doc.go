// Package service holds the knowledge about Tablestore that the packages of the module
// share: the rules for names and endpoints, the credentials cache, the meaning of the
// service's error codes, and calls of its table API. Each rule about the service is
// written here, once.
package service

// The calls of the JavaScript client.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { createInterface } from 'node:readline';
import { createRequire } from 'node:module';
import { PassThrough, Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pathToFileURL } from 'node:url';

const { resolve } = createRequire(`${process.env.QUORATE_CLIENTS}/`);
const k8s = await import(pathToFileURL(resolve('@kubernetes/client-node')));

const kubeConfig = new k8s.KubeConfig();
kubeConfig.loadFromDefault();
const core = kubeConfig.makeApiClient(k8s.CoreV1Api);
const apps = kubeConfig.makeApiClient(k8s.AppsV1Api);
const namespace = 'default';
const container = (name, command) => ({ name, image: process.env.CLIENT_IMAGE, imagePullPolicy: 'Never', command });
const configMap = (name, data, labels) => ({ metadata: { name, labels }, data });
const body = (error) => JSON.parse(error.body);

async function refused(code, promise) {
    const error = await promise.then(
        (value) => assert.fail(`expected ${code}, but the call returned ${JSON.stringify(value)}`),
        (error) => error,
    );
    assert.equal(error.code, code, error);
    return error;
}

async function eventually(what, check, seconds = 60) {
    const deadline = Date.now() + seconds * 1000;
    for (;;) {
        const found = await check();
        if (found) return found;
        assert.ok(Date.now() < deadline, `${what}: not after ${seconds} s, but ${JSON.stringify(found)}`);
        await new Promise((resume) => setTimeout(resume, 50));
    }
}

async function discovery() {
    const version = await kubeConfig.makeApiClient(k8s.VersionApi).getCode();
    assert.equal(version.minor, '36');
    const { groups } = await kubeConfig.makeApiClient(k8s.ApisApi).getAPIVersions();
    assert.ok(groups.some((group) => group.name === 'apps'));
    const { resources } = await core.getAPIResources();
    assert.ok(resources.some((resource) => resource.name === 'pods/exec'));
    const node = await core.readNode({ name: 'worker-1' });
    assert.equal(node.status.nodeInfo.operatingSystem, 'linux');
}

async function create() {
    const created = await core.createNamespacedConfigMap({ namespace, body: configMap('js', { data: '1' }) });
    assert.ok(created.metadata.uid && created.metadata.creationTimestamp instanceof Date);
    const again = await refused(409, core.createNamespacedConfigMap({ namespace, body: configMap('js') }));
    assert.equal(body(again).reason, 'AlreadyExists');
    const secret = { metadata: { generateName: 'js-' }, stringData: { key: 'value' } };
    const { data } = await core.createNamespacedSecret({ namespace, body: secret });
    assert.deepEqual(data, { key: 'dmFsdWU=' });
    await core.createNamespacedConfigMap({ namespace, body: configMap('js-dry'), dryRun: 'All' });
    await refused(404, core.readNamespacedConfigMap({ namespace, name: 'js-dry' }));
}

async function getAndReplace() {
    const found = await core.readNamespacedConfigMap({ namespace, name: 'js' });
    assert.deepEqual(found.data, { data: '1' });
    found.data = { data: '2' };
    const replaced = await core.replaceNamespacedConfigMap({ namespace, name: 'js', body: found });
    assert.notEqual(replaced.metadata.resourceVersion, found.metadata.resourceVersion);
    const stale = await refused(409, core.replaceNamespacedConfigMap({ namespace, name: 'js', body: found }));
    assert.equal(body(stale).reason, 'Conflict');
}

async function listInPages() {
    for (let number = 0; number < 7; number++) {
        const page = configMap(`js-page-${number}`, undefined, { js: String(number % 2) });
        await core.createNamespacedConfigMap({ namespace, body: page });
    }
    const names = [];
    let _continue;
    do {
        const list = await core.listNamespacedConfigMap({ namespace, labelSelector: 'js', limit: 3, _continue });
        names.push(...list.items.map((item) => item.metadata.name));
        _continue = list.metadata._continue;
    } while (_continue);
    assert.deepEqual(names, [0, 1, 2, 3, 4, 5, 6].map((number) => `js-page-${number}`));
    const labelled = await core.listConfigMapForAllNamespaces({ labelSelector: 'js in (1),js!=0' });
    assert.equal(labelled.items.length, 3);
    const chosen = await core.listNamespacedConfigMap({ namespace, fieldSelector: 'metadata.name=js-page-4' });
    assert.deepEqual(chosen.items.map((item) => item.metadata.name), ['js-page-4']);
}

async function watchAndDelete() {
    const { metadata } = await core.listNamespacedConfigMap({ namespace });
    await core.deleteNamespacedConfigMap({ namespace, name: 'js-page-0' });
    await core.deleteCollectionNamespacedConfigMap({ namespace, labelSelector: 'js' });
    const events = [];
    await new Promise((done, failed) => {
        const query = { labelSelector: 'js', resourceVersion: metadata.resourceVersion };
        const request = new k8s.Watch(kubeConfig).watch(
            `/api/v1/namespaces/${namespace}/configmaps`,
            query,
            async (type, found) => {
                events.push(`${type} ${found.metadata.name}`);
                if (events.length === 7) (await request).abort();
            },
            (error) => (events.length === 7 ? done() : failed(error)),
        );
    });
    assert.deepEqual(events.sort(), [0, 1, 2, 3, 4, 5, 6].map((number) => `DELETED js-page-${number}`));
}

async function patch() {
    const labels = { app: 'js' };
    const containers = ['a', 'b'].map((name) => container(name, ['sleep', '3600']));
    const template = { metadata: { labels }, spec: { terminationGracePeriodSeconds: 0, containers } };
    const spec = { replicas: 0, selector: { matchLabels: labels }, template };
    await apps.createNamespacedDeployment({ namespace, body: { metadata: { name: 'js' }, spec } });
    const change = { spec: { template: { spec: { containers: [{ name: 'b', env: [{ name: 'X', value: '1' }] }] } } } };
    const as = (strategy) => k8s.setHeaderOptions('Content-Type', strategy);
    const changed = await apps.patchNamespacedDeployment(
        { namespace, name: 'js', body: change },
        as(k8s.PatchStrategy.StrategicMergePatch),
    );
    const shown = changed.spec.template.spec.containers.map((c) => `${c.name} ${c.env?.length ?? 0}`);
    assert.deepEqual(shown, ['a 0', 'b 1']);

    const named = { namespace, name: 'js' };
    const operations = [
        { op: 'test', path: '/data/data', value: '2' },
        { op: 'add', path: '/metadata/labels', value: { patched: 'json' } },
    ];
    // The client's own default is a JSON patch.
    const patched = await core.patchNamespacedConfigMap({ ...named, body: operations });
    assert.deepEqual(patched.metadata.labels, { patched: 'json' });
    const wrong = [{ ...operations[0], value: '9' }];
    await refused(422, core.patchNamespacedConfigMap({ ...named, body: wrong }));
    const merge = { data: { data: null, more: '3' } };
    const merged = await core.patchNamespacedConfigMap({ ...named, body: merge }, as(k8s.PatchStrategy.MergePatch));
    assert.deepEqual(merged.data, { more: '3' });
}

async function apply() {
    const objects = k8s.KubernetesObjectApi.makeApiClient(kubeConfig);
    const applied = async (manager, data, force) => {
        const spec = { apiVersion: 'v1', kind: 'ConfigMap', ...configMap('js-applied', data) };
        const strategy = k8s.PatchStrategy.ServerSideApply;
        return (await objects.patch(spec, undefined, undefined, manager, force, strategy)).data;
    };
    assert.deepEqual(await applied('one', { a: '1', b: '1' }), { a: '1', b: '1' });
    const conflict = await refused(409, applied('two', { a: '2' }));
    assert.equal(body(conflict).details.causes[0].field, '.data.a');
    assert.deepEqual(await applied('two', { a: '2' }, true), { a: '2', b: '1' });
    assert.deepEqual(await applied('one', { c: '1' }), { a: '2', c: '1' });
    const read = await objects.read({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'js-applied', namespace } });
    assert.deepEqual(read.metadata.managedFields.map((entry) => entry.manager).sort(), ['one', 'two']);
}

async function scale() {
    const named = { namespace, name: 'js' };
    const found = await apps.readNamespacedDeploymentScale(named);
    assert.equal(found.spec.replicas ?? 0, 0);
    found.spec.replicas = 2;
    await apps.replaceNamespacedDeploymentScale({ ...named, body: found });
    await eventually('two ready pods', async () => (await apps.readNamespacedDeployment(named)).status.readyReplicas === 2);
    await apps.deleteNamespacedDeployment({ ...named, propagationPolicy: 'Foreground' });
    const left = async () => (await core.listNamespacedPod({ namespace, labelSelector: 'app=js' })).items.length;
    await eventually('the pods to be gone', async () => (await left()) === 0);
}

async function podBecomesReady() {
    const script =
        'mkdir /w; echo hello >/w/index.html; httpd -p 127.0.0.1:8080 -h /w; ' +
        'for i in 1 2 3; do echo line $i; done; while read x; do echo got $x; done; exec sleep 3600';
    const main = { ...container('main', ['sh', '-c', script]), stdin: true };
    const spec = { terminationGracePeriodSeconds: 1, containers: [main] };
    await core.createNamespacedPod({ namespace, body: { metadata: { name: 'js' }, spec } });
    const path = `/api/v1/namespaces/${namespace}/pods`;
    const informer = k8s.makeInformer(kubeConfig, path, () => core.listNamespacedPod({ namespace }));
    let ready = false;
    const look = (pod) => {
        const conditions = pod.metadata.name === 'js' ? (pod.status.conditions ?? []) : [];
        ready ||= conditions.some((condition) => condition.type === 'Ready' && condition.status === 'True');
    };
    informer.on('add', look);
    informer.on('update', look);
    await informer.start();
    await eventually('the pod to be ready', () => ready);
    await informer.stop();
}

async function exec(command, input) {
    const [out, err] = [new PassThrough(), new PassThrough()];
    const outputs = Promise.all([text(out), text(err)]);
    const status = new Promise((done, failed) => {
        new k8s.Exec(kubeConfig).exec(namespace, 'js', 'main', command, out, err, input, false, done).catch(failed);
    });
    const [stdout, stderr] = await outputs;
    return { stdout, stderr, status: await status };
}

async function execInPod() {
    const failed = await exec(['sh', '-c', 'echo out; echo err >&2; exit 7'], null);
    assert.deepEqual([failed.stdout, failed.stderr], ['out\n', 'err\n']);
    assert.deepEqual(failed.status.details.causes, [{ reason: 'ExitCode', message: '7' }]);
    const counted = await exec(['wc', '-c'], Readable.from([Buffer.alloc(600_000, 'x'), Buffer.alloc(400_000, 'y')]));
    assert.deepEqual([counted.stdout.trim(), counted.status.status], ['1000000', 'Success']);
    const lines = await exec(['seq', '1', '100000'], null);
    assert.ok(lines.stdout.endsWith('\n99999\n100000\n'), lines.stdout.slice(-50));
}

async function attach() {
    const [input, output] = [new PassThrough(), new PassThrough()];
    const socket = await new k8s.Attach(kubeConfig).attach(namespace, 'js', 'main', output, null, input, false);
    input.write('word\n');
    for await (const line of createInterface(output)) {
        if (line === 'got word') break;
    }
    socket.close();
}

async function portForward() {
    const forward = new k8s.PortForward(kubeConfig);
    const server = createServer((socket) => {
        socket.on('error', () => {});
        forward.portForward(namespace, 'js', [8080], socket, null, socket).catch((error) => socket.destroy(error));
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${server.address().port}/index.html`;
    for (let attempt = 0; attempt < 3; attempt++) {
        const answer = await fetch(url, { headers: { connection: 'close' } });
        assert.equal(await answer.text(), 'hello\n');
    }
    server.close();
}

async function logs() {
    const named = { namespace, name: 'js' };
    const all = await core.readNamespacedPodLog(named);
    assert.ok(all.startsWith('line 1\nline 2\nline 3\n'), all);
    assert.equal(await core.readNamespacedPodLog({ ...named, tailLines: 1 }), 'got word\n');
    const output = new PassThrough();
    const request = await new k8s.Log(kubeConfig).log(namespace, 'js', 'main', output, { follow: true, tailLines: 2 });
    const lines = [];
    for await (const line of createInterface(output)) {
        lines.push(line);
        if (line === 'got word') await exec(['sh', '-c', 'echo late >/proc/1/fd/1'], null);
        if (line === 'late') break;
    }
    request.abort();
    assert.deepEqual(lines, ['line 3', 'got word', 'late']);
    await core.deleteNamespacedPod({ ...named, gracePeriodSeconds: 0 });
}

// Errors after which a user of the client tries again: a broken connection, and an overloaded or electing server.
function isTransient(error) {
    if (error instanceof k8s.ApiException) return error.code === 429 || error.code >= 500;
    return error.name === 'FetchError';
}

async function repeated(call) {
    const deadline = Date.now() + 60_000;
    for (let attempt = 1; ; attempt++) {
        try {
            return await call(attempt);
        } catch (error) {
            if (!isTransient(error) || Date.now() > deadline) throw error;
        }
        await new Promise((resume) => setTimeout(resume, 50));
    }
}

async function leaderDies() {
    const labels = { test: 'death' };
    const labelSelector = 'test=death';
    const seen = new Map();
    const listed = () => core.listNamespacedConfigMap({ namespace, labelSelector });
    const path = `/api/v1/namespaces/${namespace}/configmaps`;
    const informer = k8s.makeInformer(kubeConfig, path, listed, labelSelector);
    let restarts = 0;
    const note = (type) => (found) => {
        const { name, uid } = found.metadata;
        seen.set(name, [...(seen.get(name) ?? []), `${type} ${uid} ${found.data.round}`]);
    };
    informer.on('add', note('add'));
    informer.on('update', note('update'));
    informer.on('delete', note('delete'));
    informer.on('error', () => {
        restarts++;
        setTimeout(() => informer.start(), 50);
    });
    await informer.start();

    const acknowledged = new Map();
    const write = async (name) => {
        const uid = await repeated(async (attempt) => {
            const body = configMap(name, { round: '0' }, labels);
            try {
                return (await core.createNamespacedConfigMap({ namespace, body })).metadata.uid;
            } catch (error) {
                // An earlier attempt, whose answer was lost, has created it.
                if (attempt === 1 || error.code !== 409) throw error;
                return (await core.readNamespacedConfigMap({ namespace, name })).metadata.uid;
            }
        });
        const merge = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch);
        const body = { data: { round: '1' } };
        await repeated(() => core.patchNamespacedConfigMap({ namespace, name, body }, merge));
        acknowledged.set(name, uid);
    };
    const dead = once(createInterface(process.stdin), 'line').then(([line]) => assert.equal(line, 'killed'));
    let gone = false;
    dead.then(() => (gone = true));
    const numbered = (number) => String(number).padStart(5, '0');
    for (let number = 0; number < 60; number++) await write(`write-before-${numbered(number)}`);
    console.log('kill the leader');
    for (let number = 0; !gone; number++) await write(`write-while-${numbered(number)}`);
    await dead;
    for (let number = 0; number < 60; number++) await write(`write-after-${numbered(number)}`);

    const { items } = await repeated(listed);
    const stored = items.map((item) => `${item.metadata.name} ${item.metadata.uid} ${item.data.round}`);
    assert.deepEqual(stored, [...acknowledged].map(([name, uid]) => `${name} ${uid} 1`).sort());
    const isComplete = ([name, uid]) => seen.get(name)?.at(-1) === `update ${uid} 1`;
    await eventually('the informer to see all', () => [...acknowledged].every(isComplete));
    await informer.stop();
    for (const [name, uid] of acknowledged) {
        assert.deepEqual([name, ...seen.get(name)], [name, `add ${uid} 0`, `update ${uid} 1`]);
        console.log(`acknowledged ${name} ${uid}`);
    }
    assert.ok(restarts > 0, 'the watch went through the leader, so it broke');
}

const steps = [
    discovery,
    create,
    getAndReplace,
    listInPages,
    watchAndDelete,
    patch,
    apply,
    scale,
    podBecomesReady,
    execInPod,
    attach,
    portForward,
    logs,
    leaderDies,
];
for (const step of steps) {
    console.log(`step ${step.name}`);
    try {
        await step();
    } catch (error) {
        console.error(error);
        console.log(`failed ${step.name}`);
        process.exit(1);
    }
}
console.log('done');
process.exit(0);

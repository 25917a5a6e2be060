import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateException;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import javax.net.ssl.TrustManagerFactory;
import javax.net.ssl.X509TrustManager;

/**
 * Judges a chain, a PEM file, by Java's own trust manager, as a server's or a
 * client's; which roots it trusts, javax.net.ssl.trustStore says. It ends with
 * status 3 if it refuses.
 */
class Uses {
    public static void main(String[] args) throws Exception {
        X509Certificate[] chain;
        try (InputStream in = Files.newInputStream(Path.of(args[1]))) {
            chain = CertificateFactory.getInstance("X.509").generateCertificates(in).toArray(new X509Certificate[0]);
        }
        TrustManagerFactory factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init((KeyStore) null);
        X509TrustManager manager = (X509TrustManager) factory.getTrustManagers()[0];
        try {
            if (args[0].equals("server")) {
                manager.checkServerTrusted(chain, "ECDHE_ECDSA");
            } else {
                manager.checkClientTrusted(chain, "EC");
            }
        } catch (CertificateException e) {
            System.out.println(e.getMessage());
            System.exit(3);
        }
    }
}
